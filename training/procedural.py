"""Procedural pictures with the statistics of photographs, for training the VAE.

What it is for: an autoencoder that saw only renders fails on photographs. Dead leaves (occluding shapes with
power-law radii), coloured 1/f noise, waves, blurred shapes and letters share edge, scale and colour statistics with
photographs and cost about 10 ms each. No photograph is ever used for training.
What it is not for: they carry no meaning; text and U-Net never see them.

Dead leaves: Lee, Mumford, Huang, "Occlusion models for natural images" (2001); use as training data: Baradad et al.,
"Learning to see by looking at noise" (2021).
"""
import io
import os
import time

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WORK = 256  # drawn at this size, then reduced, so that edges are anti-aliased
SIZE = 176  # size kept: random crops are cut from it


def noise_bank(rng, n=24, size=384):
    """n coloured 1/f^a fields, float32 (size, size, 3), zero mean, unit deviation."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) + 1 / size
    bank = []
    for _ in range(n):
        a = rng.uniform(0.8, 2.0)
        g = f if rng.random() < 0.6 else np.hypot(np.fft.fftfreq(size)[:, None] * rng.uniform(1, 6), np.fft.rfftfreq(size)[None]) + 1 / size
        sp = rng.standard_normal((3, size, size // 2 + 1)) + 1j * rng.standard_normal((3, size, size // 2 + 1))
        x = np.fft.irfft2(sp / g**a, s=(size, size), axes=(1, 2))
        x = (x - x.mean((1, 2), keepdims=True)) / (x.std((1, 2), keepdims=True) + 1e-9)
        mix = np.full((3, 3), 1 / 3) * rng.uniform(0.5, 1) * 2 + rng.normal(0, 0.12, (3, 3))  # mostly luminance
        x = np.einsum("ij,jhw->hwi", mix, x)
        bank.append((x / (x.std() + 1e-9)).astype(np.float32))
    return bank


def palette(rng):
    """A colour drawer: a picture has few hues, like a photograph."""
    base = rng.random((rng.integers(2, 7), 3)) ** rng.uniform(0.6, 1.6)
    sat = rng.uniform(0.05, 0.85) if rng.random() < 0.8 else 1.0
    grey = base.mean(1, keepdims=True)
    base = (grey + sat * (base - grey)) * rng.uniform(0.5, 1.1)

    def draw():
        return (base[rng.integers(len(base))] + rng.normal(0, 0.15) + rng.normal(0, 0.03, 3)).astype(np.float32)

    return draw


def crop(rng, bank, h, w):
    b = bank[rng.integers(len(bank))]
    k = int(rng.choice([1, 1, 1, 2]))
    h2, w2 = h * k, w * k
    if h2 > b.shape[0] or w2 > b.shape[1]:
        k, h2, w2 = 1, h, w
    y, x = rng.integers(b.shape[0] - h2 + 1), rng.integers(b.shape[1] - w2 + 1)
    c = b[y : y + h2 : k, x : x + w2 : k]
    return c if rng.random() < 0.5 else c[::-1, ::-1]


YY, XX = np.mgrid[0:WORK, 0:WORK].astype(np.float32) / WORK


def gradient(rng, draw):
    a = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else np.pi / 2
    t = np.clip((XX - 0.5) * np.cos(a) + (YY - 0.5) * np.sin(a) + 0.5, 0, 1)[..., None] ** rng.uniform(0.5, 2)
    return draw() * (1 - t) + draw() * t


def leaves(rng, bank, img=None):
    draw = palette(rng)
    if img is None:
        img = gradient(rng, draw) + crop(rng, bank, WORK, WORK) * rng.uniform(0, 0.15)
    n = int(rng.choice([15, 40, 100, 200, 320]))
    lo, hi = 2.0, rng.uniform(15, 90)
    u = rng.random(n)
    e = rng.uniform(1.0, 2.4)  # exponent of the radius density
    r = (lo ** (-e) + u * (hi ** (-e) - lo ** (-e))) ** (-1 / e) if n > 60 else rng.uniform(6, hi, n)
    r = np.sort(r)[::-1] if rng.random() < 0.35 else r
    soft = rng.uniform(0.5, 1.5) if rng.random() < 0.8 else rng.uniform(2, 14)
    textured = rng.random() < 0.75
    for ri in r:
        cy, cx = rng.uniform(-10, WORK + 10, 2)
        k = int(ri * 1.6) + 2
        y0, y1, x0, x1 = max(0, int(cy) - k), min(WORK, int(cy) + k), max(0, int(cx) - k), min(WORK, int(cx) + k)
        if y1 <= y0 or x1 <= x0:
            continue
        yy = np.arange(y0, y1, dtype=np.float32)[:, None] - cy
        xx = np.arange(x0, x1, dtype=np.float32)[None] - cx
        a, asp = rng.uniform(0, np.pi), rng.uniform(0.25, 1)
        p, q = xx * np.cos(a) + yy * np.sin(a), (yy * np.cos(a) - xx * np.sin(a)) / asp
        kind = rng.integers(4)
        if kind == 0:
            d = ri - np.maximum(np.abs(p), np.abs(q))  # rectangle
        elif kind == 1:
            d = ri - np.abs(p) - np.abs(q)  # rhombus
        else:
            d = ri - np.sqrt(p * p + q * q)  # ellipse
        m = np.clip(d / soft + 0.5, 0, 1)[..., None]
        c = draw()
        fill = c + (p / ri)[..., None] * rng.normal(0, 0.08, 3).astype(np.float32) * 1.5
        if textured and ri > 4:
            fill = fill + crop(rng, bank, y1 - y0, x1 - x0)[: y1 - y0, : x1 - x0] * rng.uniform(0, 0.14) ** 1.3
        s = img[y0:y1, x0:x1]
        s += m * (fill - s)
    return img


def clouds(rng, bank):
    draw = palette(rng)
    t = crop(rng, bank, WORK, WORK)
    if rng.random() < 0.5:
        return draw() + t * rng.uniform(0.05, 0.3)
    m = 1 / (1 + np.exp(-t[..., :1] * rng.uniform(1, 12)))
    return draw() * m + draw() * (1 - m) + crop(rng, bank, WORK, WORK) * rng.uniform(0, 0.1)


def waves(rng, bank):
    draw = palette(rng)
    img = gradient(rng, draw)
    for _ in range(rng.integers(1, 5)):
        a, f = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(2), np.log(40)))
        ph = (XX * np.cos(a) + YY * np.sin(a) + 0.02 * rng.random() * crop(rng, bank, WORK, WORK)[..., 0]) * f * 2 * np.pi
        s = np.sin(ph + rng.uniform(0, 6))
        if rng.random() < 0.3:
            s = np.clip(s * 6, -1, 1)
        img = img + s[..., None] * (draw() - 0.5) * rng.uniform(0.1, 0.6)
    return img


def letters(rng, bank, img):
    pic = Image.fromarray((np.clip(img, 0, 1) * 255).astype(np.uint8))
    d = ImageDraw.Draw(pic)
    for _ in range(rng.integers(2, 12)):
        s = "".join(chr(rng.integers(33, 122)) for _ in range(rng.integers(1, 9)))
        d.text(tuple(rng.uniform(-10, WORK - 20, 2)), s, fill=tuple(int(v) for v in rng.integers(0, 256, 3)), font=FONTS[rng.integers(len(FONTS))])
        if rng.random() < 0.4:
            d.line([tuple(rng.uniform(0, WORK, 2)) for _ in range(rng.integers(2, 5))], fill=tuple(int(v) for v in rng.integers(0, 256, 3)), width=int(rng.integers(1, 6)))
    return np.asarray(pic, np.float32) / 255


FONTS = [ImageFont.load_default(s) for s in (10, 14, 20, 32, 56, 90)]


def picture(rng, bank):
    """One picture, uint8 (SIZE, SIZE, 3)."""
    k = rng.random()
    if k < 0.55:
        img = leaves(rng, bank)
    elif k < 0.68:
        img = clouds(rng, bank)
    elif k < 0.74:
        img = waves(rng, bank)
    elif k < 0.80:
        img = letters(rng, bank, leaves(rng, bank) if rng.random() < 0.4 else gradient(rng, palette(rng)) + crop(rng, bank, WORK, WORK) * 0.05)
    else:  # two worlds, divided by a ragged line: a sky over a ground
        a, b = clouds(rng, bank) if rng.random() < 0.6 else gradient(rng, palette(rng)), leaves(rng, bank)
        line = rng.uniform(0.2, 0.8) + np.cumsum(rng.normal(0, rng.uniform(0.001, 0.02), WORK)).astype(np.float32)
        m = np.clip((YY - line[None]) * WORK / rng.choice([1, 1, 2, 20]) + 0.5, 0, 1)[..., None]
        img = a * (1 - m) + b * m
    if rng.random() < 0.5:  # uneven light
        img = img * (1 + 0.35 * np.clip(crop(rng, bank, 8, 8).mean(), -1, 1) + rng.normal(0, 0.4) * (XX - 0.5)[..., None] + rng.normal(0, 0.4) * (YY - 0.5)[..., None])
    return finish(rng, img)


def finish(rng, img):
    """Exposure, gamma, white balance, blur, grain, JPEG; reduced to SIZE."""
    img = np.clip(img, 0, 1) ** np.exp(rng.normal(0, 0.3))
    img = np.clip(img * np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.07, 3)) + rng.normal(0, 0.04), 0, 1)
    pic = Image.fromarray((img * 255).astype(np.uint8))
    if rng.random() < 0.25:
        pic = pic.filter(ImageFilter.GaussianBlur(rng.exponential(1.2)))
    pic = pic.resize((SIZE, SIZE), Image.LANCZOS if rng.random() < 0.6 else Image.BICUBIC)
    if rng.random() < 0.3:
        a = np.asarray(pic, np.float32)
        pic = Image.fromarray(np.clip(a + rng.normal(0, rng.exponential(4), a.shape), 0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        b = io.BytesIO()
        pic.save(b, "JPEG", quality=int(rng.integers(45, 96)))
        pic = Image.open(b).convert("RGB")
    return np.asarray(pic)


def fill(path, n, seed, lo=0, hi=None, pause=0.0, rounds=1):
    """Fill (or refresh) rows lo..hi of the pool file at `path`, an .npy of uint8 (n, SIZE, SIZE, 3)."""
    pool = np.lib.format.open_memmap(path, "r+")
    for k in range(rounds):
        rng = np.random.default_rng([seed, k])
        bank = noise_bank(rng)
        for i in range(lo, hi or n):
            if i % 500 == 499:
                bank = noise_bank(rng)
            pool[i] = picture(rng, bank)
            if pause:
                time.sleep(pause)


def make_pool(path, n=4000, procs=2, seed=0):
    """Create the pool if it is not there, with `procs` processes."""
    from multiprocessing import get_context

    if os.path.exists(path):
        return
    part = str(path) + ".part.npy"
    np.lib.format.open_memmap(part, "w+", np.uint8, (n, SIZE, SIZE, 3)).flush()
    cut = [n * i // procs for i in range(procs + 1)]
    ps = [get_context("spawn").Process(target=fill, args=(part, n, seed + 1 + i, cut[i], cut[i + 1])) for i in range(procs)]
    [p.start() for p in ps]
    [p.join() for p in ps]
    if any(p.exitcode for p in ps):
        raise SystemExit("procedural pool: a worker failed")
    os.replace(part, path)


if __name__ == "__main__":  # python procedural.py POOL.npy N  |  python procedural.py SHEET.png
    import sys

    if sys.argv[1].endswith(".npy"):
        make_pool(sys.argv[1], int(sys.argv[2]))
    else:
        t, rng = time.time(), np.random.default_rng(5)
        bank = noise_bank(rng)
        ims = [picture(rng, bank) for _ in range(48)]
        print("%.1f ms a picture" % ((time.time() - t) / 48 * 1e3))
        Image.fromarray(np.concatenate([np.concatenate(ims[i : i + 8], 1) for i in range(0, 48, 8)], 0)).save(sys.argv[1])
