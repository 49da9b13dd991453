"""What every training here shares: set-up, averaged weights, checkpoints, the noise schedule, PSNR, the local colour map."""
import copy
import os

import torch
import torch.nn.functional as F


def setup(a):
    """Threads, seed, folder; the device."""
    os.makedirs(a.runs, exist_ok=True)
    torch.set_num_threads(a.threads)
    torch.manual_seed(int.from_bytes(os.urandom(4), "little"))
    return torch.device(a.device)


class Ema:
    """Exponential moving average of the weights, with a shorter memory at the start."""

    def __init__(self, m, decay):
        self.m, self.decay = copy.deepcopy(m).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, m, i):
        k = min(self.decay, (i + 1) / (i + 12))
        torch._foreach_lerp_(list(self.m.parameters()), [p.detach() for p in m.parameters()], 1 - k)

    def into(self, m):
        return self.m


def save(path, m, ema, opt, i, seconds):
    torch.save(dict(m=m.state_dict(), ema=ema.m.state_dict(), opt=opt.state_dict(), i=i, seconds=seconds), path + ".part")
    os.replace(path + ".part", path)


def load(path, dev, m, ema, opt):
    """(step, seconds trained); (0, 0) where there is no checkpoint."""
    if not os.path.exists(path):
        return 0, 0.0
    c = torch.load(path, map_location=dev, weights_only=True)
    m.load_state_dict(c["m"])
    ema.m.load_state_dict(c["ema"])
    try:
        opt.load_state_dict(c["opt"])
    except (ValueError, KeyError) as e:
        print("optimiser starts anew:", e)
    return c["i"], c["seconds"]


def psnr(a, b):
    """dB per picture of (n, 3, h, w) in [-1, 1], at most 60."""
    return -10 * torch.log10((((a - b) / 2) ** 2).mean((1, 2, 3)).clamp(min=1e-6))


def local_map(I, p, r, eps):
    """Local affine model x -> A x + b of the change p over the picture I, both (n, 3, h, w), as src/layer/guided.rs fits it:
    windows of (2 r + 1)^2 pixels, ridge eps (squared colour) towards no dependence on I."""
    n, _, h, w = I.shape
    box = lambda x: F.avg_pool2d(F.pad(x, [r] * 4), 2 * r + 1, 1, divisor_override=1)
    count = box(torch.ones_like(I[:1, :1]))
    mean = lambda x: box(x) / count
    mi, mp = mean(I), mean(p)
    outer = lambda a, b: mean((a[:, :, None] * b[:, None]).reshape(n, 9, h, w)).reshape(n, 3, 3, h, w)
    S = (outer(I, I) - mi[:, :, None] * mi[:, None]).permute(0, 3, 4, 1, 2) + eps * torch.eye(3, device=I.device)
    A = torch.linalg.solve(S, (outer(I, p) - mi[:, :, None] * mp[:, None]).permute(0, 3, 4, 1, 2))  # (n, h, w, in, out)
    b = mp - torch.einsum("nhwij,nihw->njhw", A, mi)
    A, b = mean(A.reshape(n, h, w, 9).permute(0, 3, 1, 2)).reshape(n, 3, 3, h, w), mean(b)
    return lambda x: torch.einsum("nijhw,nihw->njhw", A, x) + b


def alphas(n=1000):
    """Cumulative products, scaled-linear beta 0.00085 .. 0.012 rescaled to zero terminal SNR (Lin et al. 2023, alg. 1)."""
    s = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, n, dtype=torch.float64) ** 2, 0).sqrt()
    s = (s - s[-1]) * s[0] / (s[0] - s[-1])
    return (s * s).float()


class Muon(torch.optim.Optimizer):
    """Muon for hidden matrices and filters (Jordan 2024; scaled to AdamW's update size, Liu et al. 2025), AdamW for the rest.

    Few steps are all that a CPU affords, and orthogonalised updates get further in each.
    """

    def __init__(self, m, lr, matrix_lr=1.5, decay=0.01):
        ps = [p for p in m.parameters() if p.requires_grad]
        wide = [p for p in ps if p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 16]
        ids = {id(p) for p in wide}
        super().__init__([dict(params=wide, wide=True), dict(params=[p for p in ps if id(p) not in ids], wide=False)], dict(lr=lr))
        self.matrix_lr, self.decay = matrix_lr, decay

    @torch.no_grad()
    def step(self):
        wide, rest = self.param_groups
        shapes = {}
        for p in wide["params"]:
            if p.grad is not None:
                s = self.state[p]
                if not s:
                    s["m"] = torch.zeros_like(p)
                s["m"].lerp_(p.grad, 0.05)
                u = p.grad.lerp(s["m"], 0.95).reshape(len(p), -1)  # Nesterov
                shapes.setdefault(u.shape, []).append((p, u))
        for (h, w), items in shapes.items():  # all of one shape together
            k = wide["lr"] * self.matrix_lr * 0.2 * max(h, w) ** 0.5
            for (p, _), u in zip(items, orthogonal(torch.stack([u for _, u in items]))):
                p.mul_(1 - wide["lr"] * self.decay).add_(u.view_as(p), alpha=-k)
        for p in rest["params"]:
            if p.grad is not None:
                s = self.state[p]
                if not s:
                    s["m"], s["v"], s["n"] = torch.zeros_like(p), torch.zeros_like(p), 0
                s["n"] += 1
                s["m"].lerp_(p.grad, 0.1)
                s["v"].lerp_(p.grad * p.grad, 0.01)
                k = rest["lr"] * (1 - 0.99 ** s["n"]) ** 0.5 / (1 - 0.9 ** s["n"])
                p.addcdiv_(s["m"], s["v"].sqrt() + 1e-9, value=-k)


def orthogonal(g):
    """Nearest orthogonal matrices of (n, h, w), five quintic Newton-Schulz steps.

    Every step multiplies x by a polynomial of x xT, so the polynomials are multiplied first, on the short side alone.
    """
    flip = g.shape[1] > g.shape[2]
    x = g.mT if flip else g
    a = x @ x.mT
    a = a / (a.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + 1e-14)
    scale = (g.square().sum((1, 2), keepdim=True) + 1e-14).rsqrt()
    one = torch.eye(a.shape[1], device=a.device)
    total = one * scale
    for _ in range(5):
        q = 3.4445 * one + (-4.7750 * one + 2.0315 * a) @ a
        total, a = q @ total, q @ a @ q
    x = (total.bfloat16() @ x.bfloat16()).float()
    return x.mT if flip else x
