"""Pictures for training: scenes from the renderer (`atelier stream`) and the procedural pool.

A scene on the renderer's stdout is one line of JSON {"seed","place","n","w","h","attrs":[[7 floats]xn],
"captions":[n strings]} followed by n*h*w*3 bytes of RGB8. Validation seeds start at 900000, the bench's at 1000000;
training seeds stay below.
"""
import json
import os
import subprocess

import numpy as np

ATTRS = ("sunset", "night", "snow", "fog", "autumn", "overcast", "rain")
VAL, BENCH = 900_000, 1_000_000


def scenes(atelier, first, n, w=128, h=128, single=False, threads=1):
    """Yield (header, uint8 array (K, h, w, 3)) for the seeds first .. first + n - 1."""
    cmd = [atelier, "stream", "--first-seed", str(first), "--count", str(n), "--width", str(w), "--height", str(h), "--threads", str(threads)]
    cmd += ["--group", "single"] if single else []
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE)
    try:
        while line := p.stdout.readline():
            head = json.loads(line)
            size = head["n"] * head["h"] * head["w"] * 3
            buf = p.stdout.read(size)
            if len(buf) != size:
                raise SystemExit(f"atelier: {len(buf)} bytes of a scene of {size}: the renderer stopped early")
            yield head, np.frombuffer(buf, np.uint8).reshape(head["n"], head["h"], head["w"], 3)
    finally:
        p.stdout.close()
        p.kill()
        p.wait()


class Pool:
    """Random crops of an .npy of uint8 (n, H, W, 3), re-opened now and then because it may be refreshed."""

    def __init__(self, path):
        self.path = path
        self.x = np.load(path, mmap_mode="r")

    def batch(self, rng, b, h, w, jitter=0.0):
        """float32 (b, 3, h, w) in [-1, 1]."""
        n, hh, ww = self.x.shape[:3]
        out = np.empty((b, h, w, 3), np.float32)
        for k in range(b):
            y, x = rng.integers(hh - h + 1), rng.integers(ww - w + 1)
            c = self.x[rng.integers(n), y : y + h, x : x + w]
            c = c[:, ::-1] if rng.random() < 0.5 else c
            out[k] = c
            if rng.random() < jitter:  # exposure and white balance
                out[k] = np.clip(out[k] * np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.06, 3)) + rng.normal(0, 6), 0, 255)
        return out.transpose(0, 3, 1, 2) / 127.5 - 1


def photo(rng, x):
    """One random camera for a whole group (n, h, w, 3) uint8: exposure, white balance, contrast, haze, blur, grain, flip.

    The same camera sees the source and its counterfactuals, so what the model learns to change stays the attribute.
    """
    x = x[:, :, ::-1] if rng.random() < 0.5 else x
    if rng.random() < 0.5:
        return np.ascontiguousarray(x)
    y = x.astype(np.float32) / 255
    y = y ** np.exp(rng.normal(0, 0.15)) * np.exp(np.clip(rng.normal(-0.05, 0.08), -0.3, 0.1) + rng.normal(0, 0.04, 3)).astype(np.float32)
    if rng.random() < 0.3:  # flat contrast, a tinted veil
        k = rng.uniform(0, 0.25)
        y = y * (1 - k) + k * (rng.uniform(0.3, 0.9) + rng.normal(0, 0.04, 3)).astype(np.float32)
    if rng.random() < 0.25:
        from scipy.ndimage import gaussian_filter

        y = gaussian_filter(y, (0, *[min(rng.exponential(0.6), 1.5)] * 2, 0))
    if rng.random() < 0.4:
        y = y + rng.normal(0, rng.exponential(0.02), y.shape[1:]).astype(np.float32)
    return (np.clip(y, 0, 1) * 255 + 0.5).astype(np.uint8)


def main():
    """python data.py renders|groups --atelier PATH --first SEED --n SCENES --out FILE."""
    import argparse

    a = argparse.ArgumentParser()
    a.add_argument("what", choices=("renders", "groups"))
    a.add_argument("--atelier", required=True)
    a.add_argument("--first", type=int, default=0)
    a.add_argument("--n", type=int, default=4000)
    a.add_argument("--size", type=int, default=128)
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--out", required=True)
    a = a.parse_args()
    if a.what == "renders":  # for the VAE: pictures alone, first of all n scenes, 16 of each
        out = np.lib.format.open_memmap(a.out + ".part", "w+", np.uint8, (a.n * 16, a.size, a.size, 3))
        for i, (_, x) in enumerate(scenes(a.atelier, a.first, a.n, a.size, a.size, threads=a.threads)):
            out[i * 16 : i * 16 + 16] = x[:16]
        os.replace(a.out + ".part", a.out)
        return
    pics, attrs, places = [], [], []  # whole groups, for validation
    for head, x in scenes(a.atelier, a.first, a.n, a.size, a.size, threads=a.threads):
        pics.append(x)
        attrs.append(head["attrs"])
        places.append(head["place"])
    np.savez(a.out, pictures=np.stack(pics), attrs=np.array(attrs, np.float32), places=np.array(places))


if __name__ == "__main__":
    main()
