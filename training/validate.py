"""Score the real edit on held-out scenes: python validate.py --runs DIR [--sheet PNG] [--quick].

Exact residual inversion along the latent itself (--noise 1: independent q-samples), DDIM with eta = 1 on trailing steps, guidance 1, strength 1, neutral
"a photo of a landscape". PSNR at model size against the true counterfactual, of: the edit as a difference
(in + D(z_edit) - D(z_recon)), the edit as a `change` (local affine change + rest), the unedited picture, and an affine
colour map fitted on other scenes. Reads DIR/val.npz and DIR/lut.npz (data.py groups).
"""
import argparse
import time

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image

import captions
from common import alphas, local_map, psnr
from data import ATTRS
from unet import Text


def grid(n):
    """Trailing steps: 999 first."""
    return [round(1000 - i * 1000 / n) - 1 for i in range(n)]


class Editor:
    def __init__(self, unet, ab, noise):
        self.u, self.ab, self.noise = unet, ab, noise

    def mean(self, x, c, t, prev):
        """Mean of the DDIM step t -> prev, eta = 1 (Song et al. 2020, eq. 12), from a velocity."""
        a, p = self.ab[t], self.ab[prev] if prev >= 0 else torch.tensor(1.0)
        with torch.autocast(x.device.type, torch.bfloat16):
            v = self.u(x.contiguous(memory_format=torch.channels_last), t, c).sample.float()
        s2 = (1 - p) / (1 - a) * (1 - a / p)
        return p.sqrt() * (a.sqrt() * x - (1 - a).sqrt() * v) + (1 - p - s2).clamp(min=0).sqrt() * ((1 - a).sqrt() * x + a.sqrt() * v)

    @torch.no_grad()
    def invert(self, z, c0, n, seed=0):
        ts, g = grid(n), torch.Generator().manual_seed(seed)
        xs = [self.ab[t].sqrt() * z + self.noise * (1 - self.ab[t]).sqrt() * torch.randn(z.shape[1:], generator=g) for t in ts] + [z]
        return ts, xs, [xs[i + 1] - self.mean(xs[i], c0, t, ts[i + 1] if i + 1 < n else -1) for i, t in enumerate(ts)]

    @torch.no_grad()
    def edit(self, inv, c, tstar, rows=None):
        """c (B, L, d), rows (B,) which source each edit starts from. Steps before t* (a share of T) follow the source."""
        ts, xs, us = inv
        r = slice(None) if rows is None else rows
        k = next(i for i, t in enumerate(ts) if t < 1000 * (1 - tstar))
        x = xs[k][r]
        for i in range(k, len(ts)):
            x = self.mean(x, c, ts[i], ts[i + 1] if i + 1 < len(ts) else -1) + us[i][r]
        return x


def change(full, recon, edit, r=16, eps=1e-4, rest=0.2):
    """The compositor of the attributes' [composite]: the local map of edit - recon over recon, and a share of what it leaves."""
    x, I, p = (full + 1) / 2, (recon + 1) / 2, (edit - recon) / 2
    f = local_map(I, p, r, eps)
    return ((x + f(x) + rest * (p - f(I))) * 2 - 1).clamp(-1, 1)


def tensor(x):
    return torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).float() / 127.5 - 1


def lut(x, y):
    X, Y = (v.permute(0, 2, 3, 1).reshape(-1, 3) for v in (x, y))
    M = torch.linalg.lstsq(torch.cat([X, torch.ones(len(X), 1)], 1), Y).solution
    return lambda q: (torch.cat([q, torch.ones_like(q[:, :1])], 1).permute(0, 2, 3, 1) @ M).permute(0, 3, 1, 2).clamp(-1, 1)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--runs", default="runs")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--scenes", type=int, default=8)
    a.add_argument("--noise", type=float, default=0, help="share of the noise in the inversion's samples")
    a.add_argument("--sheet")
    a.add_argument("--quick", action="store_true", help="fewer t*")
    a.add_argument("--place", action="store_true", help="name the place in the prompts")
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    t0 = time.time()
    vae = AutoencoderKL.from_pretrained(f"{a.runs}/vae").eval().to(memory_format=torch.channels_last)
    sf = vae.config.scaling_factor
    ed = Editor(UNet2DConditionModel.from_pretrained(f"{a.runs}/unet").eval().to(memory_format=torch.channels_last), alphas(), a.noise)
    text = Text(a.runs, torch.device("cpu"))
    v, l = np.load(f"{a.runs}/val.npz"), np.load(f"{a.runs}/lut.npz")
    pics, n = v["pictures"][: a.scenes], min(a.scenes, len(v["pictures"]))
    x = tensor(pics[:, 0])
    enc = lambda x: vae.encode(x).latent_dist.mean * sf
    dec = lambda z: torch.cat([vae.decode(q / sf).sample for q in z.split(16)])
    with torch.no_grad():
        z = enc(x)
        rec = dec(z)
    print("VAE round trip %.2f dB" % psnr(rec.clamp(-1, 1), x).mean())
    same = lambda s, k: ((pics[s, 0].astype(np.float32) - pics[s, 1 + 2 * k]) ** 2).mean() < 6.5  # 40 dB: no sunset by night
    use = [[s for s in range(n) if v["attrs"][s, 0, k] < 0.3 and not same(s, k)] for k in range(7)]
    rows = [(s, k) for k in range(7) for s in use[k]]
    src = torch.tensor([s for s, _ in rows])
    truth = tensor(np.stack([pics[s, 1 + 2 * k] for s, k in rows]))
    pl = [text.places.index(str(p)) if a.place else 0 for p in v["places"][:n]]
    c0 = text.c0[pl]
    c = torch.stack([text.c0[pl[s]] + text.delta[pl[s], k, 0] for s, k in rows])
    ks = np.array([k for _, k in rows])
    table, best = {}, {}
    mean = lambda p: [p[torch.from_numpy(ks == k)].mean().item() if (ks == k).any() else float("nan") for k in range(7)]
    table["unedited"] = mean(psnr(x[src], truth))
    y = x[src].clone()
    for k in range(7):
        ok = l["attrs"][:, 0, k] < 0.3
        f = lut(tensor(l["pictures"][ok, 0]), tensor(l["pictures"][ok, 1 + 2 * k]))
        m = torch.from_numpy(ks == k)
        if m.any():
            y[m] = f(x[src][m])
    table["LUT"] = mean(psnr(y, truth))
    for steps, stars in ((10, (0.9,)), (20, (0.6,) if a.quick else (0.0, 0.15, 0.3, 0.45, 0.6))):
        inv = ed.invert(z, c0, steps)
        for ts in stars:
            with torch.no_grad():
                e = dec(ed.edit(inv, c, ts, src))
            diff = (x[src] + e - rec[src]).clamp(-1, 1)
            table[f"difference {steps} steps t* {ts}"] = mean(psnr(diff, truth))
            ch = change(x[src], rec[src], e)
            table[f"change     {steps} steps t* {ts}"] = p = mean(psnr(ch, truth))
            for k in range(7):
                if not best.get(k) or p[k] > best[k][0]:
                    best[k] = (p[k], ch[torch.from_numpy(ks == k)])
    print("%-28s" % "dB" + "".join("%9s" % k for k in ATTRS) + "     mean")
    for name, row in table.items():
        print("%-28s" % name + "".join("%9.2f" % r for r in row) + "%9.2f" % np.nanmean(row))
    print("%.0f s" % (time.time() - t0))
    if a.sheet:  # each pair of lines: edit, truth; source on the left
        im = lambda t: ((t.permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)
        lines = []
        for s in range(n):
            up, dn = [im(x[s])], [im(rec[s].clamp(-1, 1))]
            for k in range(7):
                up.append(im(best[k][1][use[k].index(s)]) if s in use[k] else np.zeros((128, 128, 3), np.uint8))
                dn.append(pics[s, 1 + 2 * k])
            lines += [np.concatenate(up, 1), np.concatenate(dn, 1)]
        Image.fromarray(np.concatenate(lines, 0)).save(a.sheet)


if __name__ == "__main__":
    main()
