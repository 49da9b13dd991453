"""Fine-tune the U-Net on what an edit keeps: python refine.py --runs DIR --init FOLDER [--minutes M].

The shipped edit is one late step and a compositor that fits a local colour map. unet.py's loss spends most of itself on
latent detail that the compositor throws away; this stage adds the error that is left behind it (README.md, "What the
last stage adds"). Resumes from DIR/refine.pt; writes DIR/unet. Not for training from nothing.
"""
import argparse
import glob
import os
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from common import Ema, Muon, alphas, load, local_map, save, setup
from data import ATTRS, VAL, scenes
from unet import SHARE, Scenes, Text, mixed

RADIUS, RIDGE = 3, 2e-4  # latent pixels, squared colour: near to the attributes' [composite]


class Colours(torch.nn.Module):
    """Mean colour (n, 3, h, w) in [0, 1] of the decoder's 8 x 8 blocks, from latents: the part of a decoder that colour maps see."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = torch.nn.Conv2d(4, 48, 3, padding=1), torch.nn.Conv2d(48, 48, 1), torch.nn.Conv2d(48, 3, 1)
        self.d = torch.nn.Conv2d(4, 3, 1)

    def forward(self, z):
        return self.d(z) + self.c(F.silu(self.b(F.silu(self.a(z)))))


def colours(a, z, dev):
    """Fitted to the VAE's decoder on 900 latents, kept in DIR/colours.pt."""
    net, path = Colours().to(dev), f"{a.runs}/colours.pt"
    if not os.path.exists(path):
        vae = AutoencoderKL.from_pretrained(f"{a.runs}/vae").to(dev, memory_format=torch.channels_last).eval()
        z = z[torch.randperm(len(z))[:900]].float()
        with torch.no_grad(), torch.autocast(dev.type, torch.bfloat16):
            y = torch.cat([F.avg_pool2d(vae.decode(q / vae.config.scaling_factor).sample.float() / 2 + 0.5, 8) for q in z.split(20)])
        opt = torch.optim.Adam(net.parameters(), 4e-3)
        n = 1500
        for i in range(n):
            for g in opt.param_groups:
                g["lr"] = 4e-3 * (1 - i / n)
            k = torch.randint(0, 800, (48,))
            opt.zero_grad()
            F.mse_loss(net(z[k]), y[k]).backward()
            opt.step()
        with torch.no_grad():
            e = ((net(z[800:]) - y[800:]) ** 2).mean()
            print("colours: rms error %.4f of deviation %.4f" % (e.sqrt(), y[800:].std()), flush=True)
        torch.save(net.state_dict(), path)
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.requires_grad_(False)


def damp(x1, x0):
    """Per channel min(1, dev x1 / dev x0), src/diffusion/inversion.rs."""
    return (x1.std((2, 3), keepdim=True) / (x0.std((2, 3), keepdim=True) + 1e-6)).clamp(max=1)


class Check:
    """The edit in small on scenes that no training saw: PSNR of block means, gain over a colour map of other scenes."""

    def __init__(self, a, text, col, dev):
        vae = AutoencoderKL.from_pretrained(f"{a.runs}/vae").to(dev, memory_format=torch.channels_last).eval()
        path = f"{a.runs}/check.npy"
        if not os.path.exists(path):
            np.save(path, np.stack([x[[0] + list(range(1, 15, 2))] for _, x in scenes(a.atelier, VAL + 300, 40, 128, 128)]))
        x = torch.from_numpy(np.load(path)).permute(0, 1, 4, 2, 3).float() / 255
        self.small = F.avg_pool2d(x.flatten(0, 1), 8).unflatten(0, (40, 8)).to(dev)
        with torch.no_grad():
            self.z = torch.cat([vae.encode(q * 2 - 1).latent_dist.mean for q in x[:, 0].split(8)]) * vae.config.scaling_factor
        self.c0, self.c1 = text.c0[:1], text.c0[:1] + text.delta[0, :, 0]
        self.col = col
        h = self.small.permute(1, 0, 3, 4, 2)
        self.lut = []
        for k in range(7):  # least squares on the other half
            y = torch.zeros_like(h[0])
            for fit, use in ((slice(0, 20), slice(20, 40)), (slice(20, 40), slice(0, 20))):
                X = torch.cat([h[0][fit], torch.ones_like(h[0][fit][..., :1])], -1).reshape(-1, 4)
                M = torch.linalg.lstsq(X, h[1 + k][fit].reshape(-1, 3)).solution
                y[use] = torch.cat([h[0][use], torch.ones_like(h[0][use][..., :1])], -1) @ M
            self.lut.append(self.psnr(y.permute(0, 3, 1, 2), k))

    def psnr(self, y, k):
        d = ((self.small[:, 1 + k] - self.small[:, 0]) ** 2).mean((1, 2, 3)) > 1e-4
        return (-10 * torch.log10(((y.clamp(0, 1) - self.small[:, 1 + k]) ** 2).mean((1, 2, 3)) + 1e-5))[d].mean().item()

    @torch.no_grad()
    def __call__(self, m, ab, ts):
        n = len(self.z)
        for t in ts:
            A = ab[t]
            x = (A.sqrt() * self.z).contiguous(memory_format=torch.channels_last)

            def clean(c):
                with torch.autocast(x.device.type, torch.bfloat16):
                    return A.sqrt() * x - (1 - A).sqrt() * m(x, t, c.expand(n, -1, -1)).sample.float()

            x0, I, out = clean(self.c0), self.col(self.z), []
            for k in range(7):
                x1 = clean(self.c1[k : k + 1])
                z = x1 + damp(x1, x0) * (self.z - x0)
                out.append(self.psnr(self.small[:, 0] + local_map(I, self.col(z) - I, RADIUS, RIDGE)(I), k) - self.lut[k])
            print("  t %3d " % t + " ".join("%s %+.2f" % (q, v) for q, v in zip(ATTRS, out)) + "  mean %+.2f" % np.mean(out), flush=True)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--runs", default="runs")
    a.add_argument("--device", default="cpu")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--atelier", required=True)
    a.add_argument("--init", help="an exported unet folder to start from")
    a.add_argument("--minutes", type=float, default=60)
    a.add_argument("--pairs", type=int, default=26, help="edits a step")
    a.add_argument("--plain", type=int, default=6, help="pictures under their own caption a step")
    a.add_argument("--lr", type=float, default=4e-4)
    a.add_argument("--compile", action="store_true", help="torch.compile, for the two commonest grids")
    a.add_argument("--check", type=float, default=10, help="minutes between checks")
    a.add_argument("--export", help="folder of the pipeline to write at the end")
    a = a.parse_args()
    dev = setup(a)
    m = UNet2DConditionModel.from_pretrained(a.init or f"{a.runs}/unet").to(dev, memory_format=torch.channels_last)
    if dev.type == "cpu":
        m.set_attn_processor(AttnProcessor())
    ema, opt = Ema(m, 0.99), Muon(m, a.lr, matrix_lr=2)
    path, rng, ab = f"{a.runs}/refine.pt", np.random.default_rng(), alphas().to(dev)
    i, done = load(path, dev, m, ema, opt)
    text = Text(a.runs, dev)
    sets = {}
    for g in SHARE:
        if files := sorted(glob.glob(f"{a.runs}/lat_{g}*.npz")):
            sets[g] = Scenes(files, text, dev)
    names = list(sets)
    share = np.array([SHARE[g] for g in names]) / sum(SHARE[g] for g in names)
    col = colours(a, sets["16x16"].z, dev)
    check = Check(a, text, col, dev)
    print("colour map", " ".join("%s %.2f" % q for q in zip(ATTRS, check.lut)), flush=True)
    check(m, ab, (66, 100, 142, 199, 249, 333))
    end = time.time() + a.minutes * 60 - done
    t0, first, saved, checked = time.time(), i, time.time(), time.time()
    said, typical = np.zeros(4), torch.full((7,), 2e-3, device=dev)
    colx = lambda x: x[:, None, None, None]
    n = a.pairs
    fast = torch.compile(m, dynamic=False) if a.compile else m
    while time.time() < end:
        f = min(1, (done + time.time() - t0) / (done + end - t0))
        lr = float(a.lr * min(1, (i + 1) / 60) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * f))))
        for q in opt.param_groups:
            q["lr"] = lr
        g = names[rng.choice(len(names), p=share)]
        s = sets[g]
        src, tgt, lam, part = s.pairs(rng, n)
        src, tgt, lam = torch.from_numpy(src).to(dev), torch.from_numpy(tgt).to(dev), lam.to(dev)
        z_s = s.z[src].float()
        z_t = z_s + colx(part) * (s.z[tgt].float() - z_s)
        c0, c1 = mixed(rng, text, s.place[src], lam)
        ix = torch.from_numpy(rng.integers(0, s.n, a.plain)).to(dev)
        z_p, c_p = s.z[ix].float(), s.emb[s.cap[ix]]
        t = torch.from_numpy(np.where(rng.random(n) < 0.65, rng.integers(80, 240, n), rng.integers(50, 400, n))).to(dev)  # one late step
        t_p = torch.from_numpy(rng.integers(0, 1000, a.plain)).to(dev)
        A, A_p, e, e_p = colx(ab[t]), colx(ab[t_p]), torch.randn_like(z_s), torch.randn_like(z_p)
        e = e * colx(torch.from_numpy(np.where(rng.random(n) < 0.6, 0, rng.random(n)).astype(np.float32)).to(dev))  # the shipped edit adds no noise
        x = A.sqrt() * z_s + (1 - A).sqrt() * e
        x_p = A_p.sqrt() * z_p + (1 - A_p).sqrt() * e_p
        with torch.autocast(dev.type, torch.bfloat16):
            v = (fast if SHARE[g] > 0.1 else m)(torch.cat([x_p, x, x]).contiguous(memory_format=torch.channels_last), torch.cat([t_p, t, t]), torch.cat([c_p, c0, c1])).sample
        v_p, v_0, v_1 = v.float().split([a.plain, n, n])
        l_p = ((v_p - (A_p.sqrt() * e_p - (1 - A_p).sqrt() * z_p)) ** 2).mean((1, 2, 3))
        x0, x1 = A.sqrt() * x - (1 - A).sqrt() * v_0, A.sqrt() * x - (1 - A).sqrt() * v_1
        w = (1 / (1 - ab[t])).clamp(max=5)
        l_0 = w * ((x0 - z_s) ** 2).mean((1, 2, 3))
        out = x1 + damp(x1, x0) * (z_s - x0)  # what the edit makes
        l_1 = w * (0.5 * (x1 - z_t) ** 2 + 0.5 * (out - z_t) ** 2).mean((1, 2, 3))
        I = col(z_s)
        l_k = ((I + local_map(I, col(out) - I, RADIUS, RIDGE)(I) - col(z_t)) ** 2).mean((1, 2, 3))
        which = (lam[:, :7] + lam[:, 7:]).argmax(1)
        with torch.no_grad():
            for k, q in zip(which.tolist(), l_k.tolist()):
                typical[k] += 0.01 * (q - typical[k])
        l_k = l_k / typical[which]
        loss = (l_p.sum() + 0.5 * l_0.sum() + 0.7 * l_1.sum() + 0.5 * l_k.sum()) / (a.plain + 2 * n)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        opt.step()
        ema.update(m, i)
        i += 1
        now = np.array([l_p.mean().item(), l_0.mean().item(), l_1.mean().item(), -10 * torch.log10(typical).mean().item()])
        said = now if i == first + 1 else 0.97 * said + 0.03 * now
        if i % 50 == 0:
            print("%d  plain %.4f  source %.4f  edit %.4f  colours %.2f dB  lr %.1e  %.2f s/step" % (i, *said, lr, (time.time() - t0) / (i - first)), flush=True)
        if time.time() - saved > 240:
            saved = time.time()
            save(path, m, ema, opt, i, done + time.time() - t0)
        if time.time() - checked > a.check * 60:
            checked = time.time()
            check(ema.m, ab, (66, 100, 142, 199, 249, 333))
    save(path, m, ema, opt, i, done + time.time() - t0)
    check(m, ab, (66, 100, 142, 199, 249, 333))
    check(ema.m, ab, (66, 100, 142, 199, 249, 333))
    ema.m.save_pretrained(f"{a.runs}/unet")
    if a.export:
        here = os.path.dirname(os.path.abspath(__file__))
        subprocess.run([sys.executable, f"{here}/export.py", "--runs", a.runs, "--out", a.export], check=True)


if __name__ == "__main__":
    main()
