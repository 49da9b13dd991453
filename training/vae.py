"""Train the VAE (AutoencoderKL, f8, 4 channels): python vae.py --runs DIR [--minutes M | --until HH:MM].

Loss: L2, a little L1 and gradient, a small KL so that latents stay smooth. The data is the procedural pool, and renders
once DIR/renders.npy exists (looked for while training). Resumes from DIR/vae.pt, or from an exported folder (--init).
"""
import argparse
import datetime
import glob
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from common import Ema, Muon, load, psnr, save, setup
from data import Pool


# few groups: with 16 channels in 8 groups each norm erases all but the ratio of two channels, and with it the colour
GROUPS = 2


def make(ch):
    return AutoencoderKL(
        block_out_channels=ch, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1, norm_num_groups=GROUPS, latent_channels=4, sample_size=128,
    )


@torch.no_grad()
def score(m, x, b=16):
    """PSNR (dB) of the round trip of float32 (n, 3, h, w) in [-1, 1], latent mean, one value a picture."""
    return torch.cat([psnr(m.decode(m.encode(x[i : i + b]).latent_dist.mean).sample.clamp(-1, 1), x[i : i + b]) for i in range(0, len(x), b)])


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--runs", default="runs")
    a.add_argument("--device", default="cpu")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--init", help="an exported vae folder to start from")
    a.add_argument("--channels", default="16,32,64,128")
    a.add_argument("--minutes", type=float, default=40)
    a.add_argument("--until", help="HH:MM, instead of --minutes")
    a.add_argument("--batch", type=int, default=16)
    a.add_argument("--lr", type=float, default=1e-3)
    a.add_argument("--renders", type=float, default=0.65, help="share of renders in a batch, once there are any")
    a.add_argument("--compile", action="store_true", help="torch.compile (about twice as fast on a CPU; 128 x 128 only, 90 s to start)")
    a.add_argument("--kl", type=float, default=3e-5, help="weight of the KL, per latent element")
    a.add_argument("--tint", type=float, default=1.5, help="weight of the 4 x 4 mean of green against magenta, and less of red against blue")
    a = a.parse_args()
    dev = setup(a)
    m = AutoencoderKL.from_pretrained(a.init) if a.init else make(tuple(map(int, a.channels.split(","))))
    m = m.to(dev, memory_format=torch.channels_last)
    print("%.2f M parameters" % (sum(p.numel() for p in m.parameters()) / 1e6))
    ema = Ema(m, 0.995)
    opt = Muon(m, a.lr, matrix_lr=2.5)
    rng, path = np.random.default_rng(int(time.time())), f"{a.runs}/vae.pt"
    i, done = load(path, dev, m, ema, opt)  # done: seconds trained before
    if a.until:
        end = datetime.datetime.combine(datetime.date.today(), datetime.time.fromisoformat(a.until)).timestamp()
    else:
        end = time.time() + a.minutes * 60 - done

    def losses(x, noise):
        mu, lv = m.quant_conv(m.encoder(x)).float().chunk(2, 1)
        lv = lv.clamp(-30, 20)
        d = m.decode(mu + (0.5 * lv).exp() * noise).sample.float() - x
        l2, l1 = (d * d).mean(), d.abs().mean()
        grad = (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
        kl = 0.5 * (mu * mu + lv.exp() - 1 - lv).mean()
        tint = F.avg_pool2d(d, 4)
        hue = (tint[:, 1] - 0.5 * (tint[:, 0] + tint[:, 2])).square().mean() + 0.3 * (tint[:, 0] - tint[:, 2]).square().mean()
        return l2 + 0.03 * l1 + 0.015 * grad + a.tint * hue + a.kl * kl, l2, l1, kl, mu.std(), (0.5 * lv).exp().mean()

    step = torch.compile(losses) if a.compile else losses
    shapes = [(128, 128)] if a.compile else [(128, 128), (128, 128), (128, 128), (112, 144), (144, 112)]
    t0, first, avg, saved, rend = time.time(), i, None, time.time(), None
    pool, used = Pool(f"{a.runs}/pool.npy"), None
    while time.time() < end:
        f = min(1, (done + time.time() - t0) / (done + end - t0))  # the share of the time that is gone
        lr = float(a.lr * min(1, (i + 1) / 60) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * f))))
        for g in opt.param_groups:
            g["lr"] = lr
        if i % 20 == 0:
            new = max(glob.glob(f"{a.runs}/renders*.npy"), key=os.path.getmtime, default=None)
            if new != used:
                used, rend = new, Pool(new)
                print("renders from", new, flush=True)
        h, w = shapes[rng.integers(len(shapes))]
        k = int(a.batch * a.renders + 0.5) if rend else 0
        x = pool.batch(rng, a.batch - k, h, w)
        if k:
            x = np.concatenate([x, rend.batch(rng, k, h, w, jitter=0.4)])
        x = torch.from_numpy(x).to(dev, memory_format=torch.channels_last)
        with torch.autocast(dev.type, torch.bfloat16):
            loss, l2, l1, kl, std, sigma = step(x, torch.randn(len(x), 4, h // 8, w // 8, device=dev))
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        opt.step()
        ema.update(m, i)
        i += 1
        l2 = l2.item()
        avg = l2 if avg is None else 0.97 * avg + 0.03 * l2
        if i % 50 == 0:
            print("%d  psnr %.2f  l1 %.4f  kl %.2f  std %.2f  sigma %.3f  lr %.1e  %.2f s/step" % (i, -10 * np.log10(avg / 4), l1.item(), kl.item(), std.item(), sigma.item(), lr, (time.time() - t0) / (i - first)), flush=True)
        if time.time() - saved > 120:
            saved = time.time()
            save(path, m, ema, opt, i, done + time.time() - t0)
    save(path, m, ema, opt, i, done + time.time() - t0)
    ema.into(m).save_pretrained(f"{a.runs}/vae")


if __name__ == "__main__":
    main()
