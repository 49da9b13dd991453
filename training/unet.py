"""Train the U-Net on counterfactuals: python unet.py --runs DIR [--minutes M | --until HH:MM].

The objective is README.md, "What the U-Net learns": part of each batch is plain v-prediction, the rest is the task that
the editor sets: noised source latents under a mixed text embedding, the counterfactual wanted.
Resumes from DIR/unet.pt or from an exported folder (--init); writes DIR/unet and, with --export, the whole pipeline.
"""
import argparse
import datetime
import glob
import os
import subprocess
import sys
import time

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModelWithProjection

import captions
from common import Ema, Muon, alphas, load, save, setup
from data import ATTRS

GENERIC = "generic"
# Thin clouds darken more than closed ones: on the renderer's way to 1 these two come back halfway.
EVEN = [ATTRS.index("overcast"), ATTRS.index("rain")]
SHARE = {"16x16": 0.60, "20x16": 0.17, "20x12": 0.07, "24x12": 0.05, "16x20": 0.05, "12x20": 0.04, "12x24": 0.02}


def make(ch=(64, 128, 192)):
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=ch, cross_attention_dim=192,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4, norm_num_groups=16,
    )


def gflop(m):
    """GFLOP (2 a multiply-add) of one call on one 16 x 16 latent and 32 tokens."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as f, torch.no_grad():
        m(torch.zeros(1, 4, 16, 16), 1, torch.zeros(1, captions.MAX, 192))
    return f.get_total_flops() / 1e9


class Text:
    """All embeddings that training needs, made once: by caption, and the directions of every attribute."""

    def __init__(self, runs, dev):
        self.tok, self.dev = captions.tokenizer(f"{runs}/tokenizer"), dev
        self.model = CLIPTextModelWithProjection.from_pretrained(f"{runs}/text_encoder").to(dev).eval()
        self.places = [GENERIC, *captions.PLACES]
        self.base = [captions.NEUTRAL] + ["a photo of " + p for p in captions.PLACES.values()]
        self.c0 = self(self.base)  # (places, L, d)
        phrases = [(*captions.PHRASES[k], captions.OPPOSITES[k]) for k in ATTRS]
        self.delta = torch.stack([torch.stack([self([f"{b}, {p}" for p in ps]) for ps in phrases]) for b in self.base]) - self.c0[:, None, None]

    @torch.no_grad()
    def __call__(self, texts):
        """(n, L, d), last hidden states."""
        ids = torch.tensor(self.tok(texts), device=self.dev)
        return torch.cat([self.model(i).last_hidden_state for i in ids.split(512)])


class Scenes:
    """The cached groups of one latent grid, and every ordered pair of states that differ in one or two attributes."""

    def __init__(self, paths, text, dev, val=0):
        ds = [np.load(p) for p in paths]
        cat = lambda k: np.concatenate([d[k] for d in ds])
        z, attrs, caps = cat("z"), cat("attrs"), cat("captions")
        place = np.array([text.places.index(str(p)) for p in cat("place")])
        n, k = attrs.shape[:2]
        self.z = torch.from_numpy(z.reshape(n * k, *z.shape[2:])).to(dev)
        uniq, inv = np.unique(caps.reshape(-1), return_inverse=True)
        self.emb, self.cap = text(["", *map(str, uniq)]), torch.from_numpy(inv.reshape(-1) + 1).to(dev)
        self.place = torch.from_numpy(np.repeat(place, k)).to(dev)
        # pairs, by the kind of change
        i, j = np.meshgrid(np.arange(k), np.arange(k), indexing="ij")
        i, j = i.reshape(-1), j.reshape(-1)
        a0, a1 = attrs[:, i], attrs[:, j]  # (n, k*k, 7)
        d = a1 - a0
        up = np.where(d > 1e-3, d / np.maximum(1 - a0, 1e-6), 0)
        down = np.where(d < -1e-3, -d / np.maximum(a0, 1e-6), 0)
        count = (np.abs(d) > 1e-3).sum(-1)
        size = np.abs(d).max(-1)
        base = np.arange(n)[:, None] * k
        ok = size > 0.05
        self.lam = np.concatenate([up, down], -1).astype(np.float32).reshape(n * k * k, 14)
        self.src, self.tgt = (base + i[None]).reshape(-1), (base + j[None]).reshape(-1)
        one = ok & (count == 1)
        # where the renderer's way is no even one, a slider still goes there evenly: a partial level is that share of the full change
        full = np.broadcast_to(base, (n, k * k)).copy()
        part = np.ones((n, k * k), np.float32)
        for q in EVEN:
            pure = one & (i == 0)[None] & (d[..., q] > 0) & (a1[:, :, q] < 1) & (np.abs(a0).sum(-1) < 1e-3)
            there = (np.abs(attrs[:, 1 + 2 * q] - np.eye(7)[q]).max(-1) < 1e-3)[:, None]
            full = np.where(pure & there, base + 1 + 2 * q, full)
            part = np.where(pure & there, a1[:, :, q], part).astype(np.float32)
        self.full, self.part = full.reshape(-1), torch.from_numpy(part.reshape(-1)).to(dev)
        self.kinds = [np.flatnonzero(m.reshape(-1)) for m in (one & (d.sum(-1) > 0) & (i == 0)[None], one & (d.sum(-1) > 0) & (i != 0)[None], one & (d.sum(-1) < 0), ok & (count == 2))]
        self.n = n * k

    def pairs(self, rng, b):
        """b pairs: source and target rows, strengths (b, 14) = 7 up, 7 down, and how much of the way the target is (b,)."""
        kinds = rng.choice(4, b, p=[0.62, 0.08, 0.18, 0.12])
        ix = np.array([self.kinds[q][rng.integers(len(self.kinds[q]))] for q in kinds])
        part = self.part[torch.from_numpy(ix)]
        tgt = np.where(part.cpu().numpy() < 1, self.full[ix], self.tgt[ix])
        return self.src[ix], tgt, torch.from_numpy(self.lam[ix]), part


def mixed(rng, text, place, lam):
    """Neutral and mixed embeddings (b, L, d): c = c0 + sum of lam_k (c1_k - c0)."""
    b = len(lam)
    generic = torch.from_numpy(rng.random(b) < 0.6).to(place.device)
    p = torch.where(generic, torch.zeros_like(place), place)
    phrase = torch.from_numpy((rng.random((b, 7)) < 0.2).astype(np.int64)).to(place.device)
    c0, d = text.c0[p], text.delta[p]  # (b, L, e), (b, 7, 3, L, e)
    up = d.gather(2, phrase[:, :, None, None, None].expand(-1, -1, 1, *d.shape[3:]))[:, :, 0]
    return c0, c0 + torch.einsum("bk,bkle->ble", lam[:, :7], up) + torch.einsum("bk,bkle->ble", lam[:, 7:], d[:, :, 2])


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--runs", default="runs")
    a.add_argument("--device", default="cpu")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--init", help="an exported unet folder to start from")
    a.add_argument("--minutes", type=float, default=60)
    a.add_argument("--until", help="HH:MM, instead of --minutes")
    a.add_argument("--batch", type=int, default=56)
    a.add_argument("--lr", type=float, default=6e-4)
    a.add_argument("--counterfactual", type=float, default=0.72, help="share of a batch")
    a.add_argument("--export-every", type=float, default=12, help="minutes between exports and validations")
    a.add_argument("--export", help="folder of the pipeline to write at each")
    a = a.parse_args()
    dev = setup(a)
    m = UNet2DConditionModel.from_pretrained(a.init) if a.init else make()
    print("%.2f M parameters, %.3f GFLOP a call" % (sum(p.numel() for p in m.parameters()) / 1e6, gflop(m)), flush=True)
    m = m.to(dev, memory_format=torch.channels_last)
    if dev.type == "cpu":
        m.set_attn_processor(AttnProcessor())  # for 64 tokens faster than the fused one: a fifth of a step
    ema = Ema(m, 0.998)
    opt = Muon(m, a.lr, matrix_lr=2)
    path, rng, ab = f"{a.runs}/unet.pt", np.random.default_rng(int(time.time())), alphas().to(dev)
    i, done = load(path, dev, m, ema, opt)
    text = Text(a.runs, dev)
    sets = {}
    for g in SHARE:
        files = sorted(glob.glob(f"{a.runs}/lat_{g}*.npz"))
        if files:
            sets[g] = Scenes(files, text, dev)
            print(g, sets[g].n, "pictures", flush=True)
    names = list(sets)
    share = np.array([SHARE[g] for g in names]) / sum(SHARE[g] for g in names)
    if a.until:
        end = datetime.datetime.combine(datetime.date.today(), datetime.time.fromisoformat(a.until)).timestamp()
    else:
        end = time.time() + a.minutes * 60 - done
    t0, first, said, saved, out = time.time(), i, np.zeros(3), time.time(), time.time()
    out -= a.export_every * 60 - 180 if done == 0 else 0  # a first export after three minutes
    n_cf = round(a.batch * a.counterfactual)
    n_em = n_cf // 4
    n_plain = a.batch - n_cf - n_em
    while time.time() < end:
        f = min(1, (done + time.time() - t0) / (done + end - t0))
        lr = float(a.lr * min(1, (i + 1) / 150) * (0.03 + 0.97 * 0.5 * (1 + np.cos(np.pi * f))))
        for g in opt.param_groups:
            g["lr"] = lr
        s = sets[names[rng.choice(len(names), p=share)]]
        # plain rows: picture and caption, one in ten without words
        ix = torch.from_numpy(rng.integers(0, s.n, n_plain)).to(dev)
        z_p = s.z[ix].float()
        c_p = s.emb[torch.where(torch.rand(n_plain, device=dev) < 0.1, 0, s.cap[ix])]
        # counterfactual rows
        src, tgt, lam, part = s.pairs(rng, n_cf)
        src, tgt, lam = torch.from_numpy(src).to(dev), torch.from_numpy(tgt).to(dev), lam.to(dev)
        z_s = s.z[src].float()
        z_t = z_s + part[:, None, None, None] * (s.z[tgt].float() - z_s)
        c0, c1 = mixed(rng, text, s.place[src], lam)
        t = torch.from_numpy(rng.integers(0, 1000, n_plain + n_cf)).to(dev)
        t = torch.where(torch.rand(len(t), device=dev) < 0.05, 999, t)
        t_p, t_c = t[:n_plain], t[n_plain:]
        busy = torch.from_numpy(rng.integers(60, 640, n_cf)).to(dev)  # the levels that an edit passes
        t_c = torch.where(torch.rand(n_cf, device=dev) < 0.8, busy, t_c)
        lo = (1 - t_c / 100).clamp(min=0)  # hardly any noise left: only states near the target
        way = lo + (1 - lo) * torch.rand(n_cf, device=dev)
        kind = torch.rand(n_cf, device=dev)  # the source itself, the target itself, or between
        way = torch.where(kind < 0.5, lo, torch.where(kind < 0.65, 1.0, way))[:, None, None, None]
        e = torch.randn_like(z_t)
        col = lambda x: x[:, None, None, None]
        A = col(ab[t_c])
        x_c = A.sqrt() * (z_s + way * (z_t - z_s)) + (1 - A).sqrt() * e
        A_m, t_m = A[:n_em], t_c[:n_em]  # the same noise on the source, for the error-matching term
        x_m = A_m.sqrt() * z_s[:n_em] + (1 - A_m).sqrt() * e[:n_em]
        e_p, A_p = torch.randn_like(z_p), col(ab[t_p])
        x_p = A_p.sqrt() * z_p + (1 - A_p).sqrt() * e_p
        x = torch.cat([x_p, x_m, x_c]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(dev.type, torch.bfloat16):
            v = m(x, torch.cat([t_p, t_m, t_c]), torch.cat([c_p, c0[:n_em], c1])).sample
        v_p, v_m, v_c = v.float().split([n_plain, n_em, n_cf])
        l_p = ((v_p - (A_p.sqrt() * e_p - (1 - A_p).sqrt() * z_p)) ** 2).mean((1, 2, 3))
        l_m = ((v_m - (A_m.sqrt() * e[:n_em] - (1 - A_m).sqrt() * z_s[:n_em])) ** 2).mean((1, 2, 3))
        err = A.sqrt() * x_c - (1 - A).sqrt() * v_c - z_t  # of the predicted clean latents
        err_m = A_m.sqrt() * x_m - (1 - A_m).sqrt() * v_m - z_s[:n_em]
        w = (1 / (1 - A[:, 0, 0, 0])).clamp(max=5)
        l_c = w * (err**2).mean((1, 2, 3))
        l_d = w[:n_em] * ((err[:n_em] - err_m) ** 2).mean((1, 2, 3))
        loss = (l_p.sum() + l_m.sum() + l_c.sum() + 0.3 * l_d.sum()) / a.batch
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        opt.step()
        ema.update(m, i)
        i += 1
        now = np.array([l_p.mean().item(), l_c.mean().item(), l_d.mean().item()])
        said = now if i == first + 1 else 0.98 * said + 0.02 * now
        if i % 50 == 0:
            print("%d  plain %.4f  counterfactual %.4f  match %.4f  lr %.1e  %.2f s/step" % (i, *said, lr, (time.time() - t0) / (i - first)), flush=True)
        if time.time() - saved > 150:
            saved = time.time()
            save(path, m, ema, opt, i, done + time.time() - t0)
        if time.time() - out > a.export_every * 60:
            out = time.time()
            export(a, ema, i)
    save(path, m, ema, opt, i, done + time.time() - t0)
    export(a, ema, i)


def export(a, ema, i):
    ema.m.save_pretrained(f"{a.runs}/unet")
    if a.export:
        here = os.path.dirname(os.path.abspath(__file__))
        subprocess.run([sys.executable, f"{here}/export.py", "--runs", a.runs, "--out", a.export], check=False)
        if i > 400:  # before that there is nothing to see
            subprocess.run([sys.executable, f"{here}/validate.py", "--runs", a.runs, "--sheet", f"{a.runs}/sheet_{i}.png", "--quick"], check=False)


if __name__ == "__main__":
    main()
