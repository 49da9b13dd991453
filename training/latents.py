"""Scenes to disk, then their latents: python latents.py render --runs DIR --atelier PATH --minutes M | encode --runs DIR.

render: groups of one scene, each seen through one random camera (data.photo), in chunks DIR/raw/WxH_SEED.npz (W, H in
latents; pictures, attrs, place, captions). Runs beside the VAE's training; clip.py reads the same chunks.
encode: the encoder's mean, times the scaling factor, into DIR/lat_WxH.npz: z float16 (n, K, 4, H, W), attrs (n, K, 7),
place (n,), captions (n, K). The scaling factor, 1 / deviation of the first chunks, goes into DIR/vae/config.json.
"""
import argparse
import glob
import json
import os
import time

import numpy as np
import torch
from diffusers import AutoencoderKL

from common import setup
from data import VAL, photo, scenes

# latents wide, high: share of the pictures
GRIDS = {(16, 16): 0.60, (20, 16): 0.17, (20, 12): 0.07, (24, 12): 0.05, (16, 20): 0.05, (12, 20): 0.04, (12, 24): 0.02}
CHUNK = 12


def render(a):
    """Chunks of every grid in turn, until the time is over; goes on after the seeds that are there."""
    os.makedirs(f"{a.runs}/raw", exist_ok=True)
    have = [os.path.basename(f)[:-4].split("_") for f in glob.glob(f"{a.runs}/raw/*.npz")]
    done = {g: sum(n == "%dx%d" % g for n, _ in have) for g in GRIDS}
    seed = max([int(s) + CHUNK for _, s in have], default=a.first)
    end, rng = time.time() + a.minutes * 60, np.random.default_rng(seed)
    while time.time() < end:
        if seed >= VAL:
            raise SystemExit("latents: out of training seeds")
        g = min(GRIDS, key=lambda g: (done[g] + 0.5) / GRIDS[g])
        got = [(h, photo(rng, x)) for h, x in scenes(a.atelier, seed, CHUNK, g[0] * 8, g[1] * 8, threads=a.threads)]
        path = f"{a.runs}/raw/%dx%d_{seed}.npz" % g
        np.savez(
            f"{a.runs}/raw/.part.npz", pictures=np.stack([x for _, x in got]), attrs=np.array([h["attrs"] for h, _ in got], np.float32),
            place=np.array([h["place"] for h, _ in got]), captions=np.array([h["captions"] for h, _ in got]),
        )
        os.replace(f"{a.runs}/raw/.part.npz", path)
        seed += CHUNK
        done[g] += 1
        print(seed - a.first, "scenes", flush=True)


def encode(a):
    dev = setup(a)
    m = AutoencoderKL.from_pretrained(f"{a.runs}/vae").to(dev, memory_format=torch.channels_last).eval()
    mean = lambda x: m.encode(x).latent_dist.mean
    fast = torch.compile(mean) if a.compile else mean
    scale, t0, n = a.scale, time.time(), 0
    for g in [g for g in GRIDS if not a.only or "%dx%d" % g in a.only.split(",")]:
        parts, lat = [np.load(f) for f in sorted(glob.glob(f"{a.runs}/raw/%dx%d_*.npz" % g))], []
        for d in parts:
            x = d["pictures"]
            for y in x:
                y = torch.from_numpy(y).to(dev).permute(0, 3, 1, 2).float() / 127.5 - 1
                with torch.no_grad(), torch.autocast(dev.type, torch.bfloat16):
                    # compiling a shape takes half a minute: only where there is much of it
                    lat.append((fast if len(parts) > 20 else mean)(y.contiguous(memory_format=torch.channels_last)).float().cpu())
            n += len(x) * x.shape[1]
            if scale is None and len(lat) >= 96:
                scale = 1 / torch.cat(lat).std().item()
                print("scaling factor %.5f, channels %s" % (scale, [round(v, 2) for v in (torch.cat(lat).std((0, 2, 3)) * scale).tolist()]), flush=True)
        if not parts:
            continue
        cat = lambda k: np.concatenate([d[k] for d in parts])
        scale = scale or 1 / torch.cat(lat).std().item()
        np.savez(f"{a.runs}/lat_%dx%d.npz" % g, z=(torch.stack(lat) * scale).half().numpy(), attrs=cat("attrs"), place=cat("place"), captions=cat("captions"))
        print(g, len(lat), "scenes, %.1f pictures a second" % (n / (time.time() - t0)), flush=True)
    path = f"{a.runs}/vae/config.json"
    c = json.load(open(path))
    c["scaling_factor"] = scale
    json.dump(c, open(path, "w"), indent=2)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("what", choices=("render", "encode"))
    a.add_argument("--runs", default="runs")
    a.add_argument("--atelier")
    a.add_argument("--device", default="cpu")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--minutes", type=float, default=9)
    a.add_argument("--only", help="grids to encode, such as 16x16,20x16: several processes of one thread are faster than one of several")
    a.add_argument("--compile", action="store_true", help="torch.compile")
    a.add_argument("--scale", type=float, help="scaling factor, where another process has found it")
    a.add_argument("--first", type=int, default=100_000)
    a = a.parse_args()
    render(a) if a.what == "render" else encode(a)


if __name__ == "__main__":
    main()
