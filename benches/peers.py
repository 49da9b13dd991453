"""Seconds of each network beside torch's and OpenVINO's, in one run:
benches/peers [--sd15 32|64|whole] [--gradients | --start | --error] [--avx2] [--candle] [--precision f32|bf16]
[--only WORDS] [--json FILE].

Medians on this machine, at the models' own sizes, f32 first and then bf16, Semblance's own (cargo bench --bench
networks), torch and OpenVINO by turns: a ratio is the median over rounds, so what slows the machine for a while slows
all of them. `--sd15 SIDE` takes a U-Net of Stable Diffusion 1.5's shape with random weights on SIDE x SIDE latents,
`--sd15 whole` all networks of such a model (for half an hour, with 20 GB of memory and 2 of disk). `--gradients` times
forward and backward to latents and text instead, beside torch alone. `--start` times ours from nothing loaded to the
first step, for a whole model of that shape (it takes 10 GB of disk for that long). `--error` times nothing: it says
how far from torch's f32 each network's result is, ours and torch's own in bf16 (norm of the difference over torch's
norm). `--avx2` holds everybody to AVX2, and so to f32. `--candle` times candle's own U-Net of that shape too, in f32
(minutes longer; built when first asked for). `--precision` leaves the other one out, `--only` every measure whose
name lacks these words ("decode").
benches/peers sets up what this needs outside the checkout. Not a test: it asserts nothing.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

AVX2 = "--avx2" in sys.argv
if AVX2:  # read when the peers are loaded
    os.environ |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}

import openvino as ov
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MINI = f"{REPO}/models/mini"
BF16 = not AVX2 and "avx512_bf16" in open("/proc/cpuinfo").read()
# Our fastest path of bf16 that this CPU has, as SEMBLANCE_CPU takes it.
ROUNDED = "amx,avx512bf16"


class Call(torch.nn.Module):
    """A module whose forward gives one tensor, as the tracer wants it."""

    def __init__(self, module, call):
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *x):
        return self.call(self.module, *x)


def networks(folder):
    """{measure: (module, inputs)} of a model, named as benches/networks.rs names them."""
    unet = UNet2DConditionModel.from_pretrained(f"{folder}/unet").float()
    vae = AutoencoderKL.from_pretrained(f"{folder}/vae").float()
    text = (CLIPTextModelWithProjection if folder == MINI else CLIPTextModel).from_pretrained(f"{folder}/text_encoder").float()
    predict = Call(unet, lambda m, x, t, c: m(x, t, c).sample)
    tokens = text.config.max_position_embeddings
    words = lambda n: torch.randn(n, tokens, unet.config.cross_attention_dim)
    side = unet.config.sample_size
    ids = torch.randint(0, text.config.vocab_size, (1, tokens))
    return {
        "text": (Call(text, lambda m, i: m(i).last_hidden_state), (ids,)),
        "U-Net, batch 1": (predict, (torch.randn(1, 4, side, side), torch.tensor([500.0]), words(1))),
        "U-Net, batch 2": (predict, (torch.randn(2, 4, side, side), torch.tensor([500.0, 300.0]), words(2))),
        "encode": (Call(vae, lambda m, x: m.encode(x).latent_dist.mean), (torch.randn(1, 3, 8 * side, 8 * side),)),
        "decode": (Call(vae, lambda m, z: m.decode(z).sample), (torch.randn(1, 4, side, side),)),
    }


def sd15(side):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)  # the class's defaults are its shape
    call = Call(unet, lambda m, x, t, c: m(x, t, c).sample)
    return {f"SD 1.5 U-Net, batch 1, {side}×{side}": (call, (torch.randn(1, 4, side, side), torch.tensor([500.0]), torch.randn(1, 77, 768)))}


def write_sd15(folder):
    """A model of Stable Diffusion 1.5's shape with random weights in f16; its words are the embedded model's."""
    wide, four = (128, 256, 512, 512), lambda name: (name,) * 4
    parts = {
        "unet": UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        "vae": AutoencoderKL(block_out_channels=wide, down_block_types=four("DownEncoderBlock2D"), latent_channels=4,
                             up_block_types=four("UpDecoderBlock2D"), layers_per_block=2, sample_size=512),
        "text_encoder": CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12,
                                                     num_hidden_layers=12)),
    }
    for name, part in parts.items():
        part.half().save_pretrained(f"{folder}/{name}")
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(f"{MINI}/{name}", f"{folder}/{name}")
    shutil.copy(f"{MINI}/model_index.json", folder)


def start(a):
    with tempfile.TemporaryDirectory() as folder:
        write_sd15(folder)
        cmd = ["cargo", "bench", "-q", "--bench", "networks", "--", folder, "--start"] + (["--json", a.json] if a.json else [])
        rows = []
        for path in our_paths(a):
            print(f"SEMBLANCE_CPU={path}", flush=True)
            subprocess.run(cmd, cwd=REPO, env={**os.environ, "SEMBLANCE_CPU": path}, check=True)
            rows += json.load(open(a.json)) if a.json else []
        if a.json:
            json.dump(rows, open(a.json, "w"), indent=1)


def our_paths(a):
    """Values of SEMBLANCE_CPU: the f32 path and then the bf16 one, where they are asked for and there."""
    paths = {"f32": "avx2" if AVX2 else "auto"} | ({"bf16": ROUNDED} if BF16 else {})
    return [path for precision, path in paths.items() if a.precision in (None, precision)]


def errors(a, folder):
    """Prints each network's distance from torch's f32."""
    torch.manual_seed(1)
    load = lambda kind, part: kind.from_pretrained(f"{folder}/{part}").float().eval()
    unet, vae = load(UNet2DConditionModel, "unet"), load(AutoencoderKL, "vae")
    text = load(CLIPTextModelWithProjection if folder == MINI else CLIPTextModel, "text_encoder")
    tokens, side, scale = text.config.max_position_embeddings, unet.config.sample_size, vae.config.scaling_factor
    tokenizer = CLIPTokenizer.from_pretrained(f"{folder}/tokenizer")
    ids = tokenizer("a photo of a mountain lake, at sunset", padding="max_length", max_length=min(tokens, tokenizer.model_max_length),
                    return_tensors="pt").input_ids
    inputs = {"latent": torch.randn(1, 4, side, side), "words": torch.randn(1, tokens, unet.config.cross_attention_dim),
              "picture": torch.rand(1, 3, 8 * side, 8 * side) * 2 - 1}
    networks = {
        "text": (text, lambda d: text(ids).last_hidden_state),
        "U-Net": (unet, lambda d: unet(inputs["latent"].to(d), torch.tensor([500.0]), inputs["words"].to(d)).sample),
        "encode": (vae, lambda d: vae.encode(inputs["picture"].to(d)).latent_dist.mean * scale),
        "decode": (vae, lambda d: vae.decode(inputs["latent"].to(d) / scale).sample),
    }
    exact = {name: call(torch.float32).flatten() for name, (_, call) in networks.items()}
    found = {}
    if BF16 or a.sd15 is None:  # of that size it takes torch a quarter of an hour without the instructions
        found["torch bf16"] = {name: call(module.to(torch.bfloat16) and torch.bfloat16).float().flatten() for name, (module, call) in networks.items()}
    with tempfile.TemporaryDirectory() as files:
        save_file(inputs, f"{files}/in")
        for path in our_paths(a) + ["portable"] * (a.sd15 is None):
            cmd = ["cargo", "bench", "-q", "--bench", "networks", "--", *([folder] * (folder != MINI)), "--outputs", f"{files}/in", f"{files}/out"]
            subprocess.run(cmd, cwd=REPO, env={**os.environ, "SEMBLANCE_CPU": path}, check=True)
            found[f"ours {path}"] = load_file(f"{files}/out")
    off = lambda x, name: ((x - exact[name]).norm() / exact[name].norm()).item()
    print("%-20s" % "off torch's f32 by" + "".join("%20s" % name for name in found))
    rows = []
    for name in exact:
        print("%-20s" % name + "".join("%20.1e" % off(x[name], name) for x in found.values()))
        rows += [{"measure": name, "of": who, "error": off(x[name], name)} for who, x in found.items()]
    if a.json:
        json.dump(rows, open(a.json, "w"), indent=1)


class Turns:
    """A program that times what it is told to, a turn at a time."""

    def __init__(self, cmd, env):
        self.cmd = " ".join(cmd)
        self.process = subprocess.Popen(cmd, cwd=REPO, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name = self.answer("it said its name")

    def turn(self, measure):
        self.process.stdin.write(measure + "\n")
        self.process.stdin.flush()
        return self.answer(repr(measure))

    def answer(self, what):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.cmd} ended before {what}: its words are above")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ours_on(path, a, folder):
    """`cargo bench --bench networks` on a CPU path (None: its own choice)."""
    extra = {"32": ["--sd15"], "64": ["--sd15-64"], "whole": [folder]}.get(a.sd15, []) + ["--gradients"] * a.gradients
    return Turns(["cargo", "bench", "-q", "--bench", "networks", "--", *extra, "--turns"], {"SEMBLANCE_CPU": path} if path else {})


def candle(a):
    """Candle as it comes, from benches/candle: built beside the peers when it is first asked for."""
    target = os.path.join(sys.prefix, "candle")
    subprocess.run(["cargo", "build", "-q", "--release", "--locked", "--manifest-path", f"{REPO}/benches/candle/Cargo.toml",
                    "--target-dir", target], env={**os.environ, "RUSTFLAGS": "-Ctarget-cpu=native"}, check=True)
    return Turns([f"{target}/release/stock-candle", "32" if a.sd15 == "32" else "64"], {})


def turn(f):
    """Seconds of f's calls in a turn: as many as half a second holds, at least three."""
    times, begun = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < 0.5:
        t = time.perf_counter()
        f()
        times.append(time.perf_counter() - t)
    return times


def by_turns(engines, least):
    """{engine: (seconds, the first engine's over its own)}: medians over `least` rounds or more of {engine: what takes a turn}.

    The cores get slower and faster for minutes: a ratio is taken within a round, where every engine has a turn.
    """
    rounds, begun = [], time.perf_counter()
    while len(rounds) < least or time.perf_counter() - begun < 10:
        # The calls of the second half: what the engine before left in the caches is gone.
        rounds.append({name: statistics.median(t[len(t) // 2:]) for name, t in ((name, take()) for name, take in engines.items())})
    first, rounds = next(iter(engines)), rounds[1:]
    return {name: (statistics.median(r[name] for r in rounds), statistics.median(r[first] / r[name] for r in rounds)) for name in engines}


def in_dtype(inputs, dtype):
    return [x.to(dtype) if x.is_floating_point() else x for x in inputs]


def gradient_cases(a):
    """{measure: (U-Net, latents, time, text, whether it checkpoints)}, named as benches/networks.rs names them."""
    if a.sd15:
        torch.manual_seed(0)
        unet, name, side, tokens = UNet2DConditionModel(sample_size=64, cross_attention_dim=768), "SD 1.5 U-Net", int(a.sd15), 77
    else:
        unet = UNet2DConditionModel.from_pretrained(f"{MINI}/unet").float()
        name, side, tokens = "U-Net", unet.config.sample_size, 32
    unet.requires_grad_(False)
    inputs = torch.randn(1, 4, side, side), torch.tensor([500.0]), torch.randn(1, tokens, unet.config.cross_attention_dim)
    return {f"{name}, gradients, {how}, {side}×{side}": (unet, *inputs, how == "Checkpoints") for how in ("Checkpoints", "All")}


def resident(field):
    """GiB in memory (VmRSS) or at most so far (VmHWM)."""
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) / 2**20


def torch_gradient(unet, x, t, c, checkpoints):
    """A forward and a backward pass, to be called; x and c are in the U-Net's precision."""
    x, c = (v.clone().requires_grad_() for v in (x, c))
    g = torch.randn_like(x)

    def gradient():
        # The cases share a U-Net.
        unet.enable_gradient_checkpointing() if checkpoints else unet.disable_gradient_checkpointing()
        with torch.enable_grad():
            torch.autograd.grad(unet(x, t, c).sample, (x, c), g)

    return gradient


def over_weights(f):
    """GiB over the weights that a call of f has at its peak."""
    weights = resident("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # Linux's word for: forget the highest so far
    f()
    return resident("VmHWM") - weights


def openvino_call(module, inputs, precision):
    """A prediction, to be called; the module is in f32."""
    model = ov.convert_model(module, example_input=tuple(inputs))
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"})
    arrays = [x.numpy() for x in inputs]
    return lambda: compiled(arrays)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sd15", choices=("32", "64", "whole"))
    p.add_argument("--gradients", action="store_true")
    p.add_argument("--start", action="store_true")
    p.add_argument("--error", action="store_true")
    p.add_argument("--avx2", action="store_true")
    p.add_argument("--candle", action="store_true")
    p.add_argument("--precision", choices=("f32", "bf16"))
    p.add_argument("--only", default="")
    p.add_argument("--json")
    a = p.parse_args()
    if a.start:
        return start(a)
    if a.gradients and a.sd15 == "whole":
        p.error("--gradients takes --sd15 32 or 64")
    if a.candle and (not a.sd15 or a.gradients or AVX2):
        p.error("--candle takes --sd15, and no other engine's limits")
    if a.error and a.sd15 in ("32", "64"):
        p.error("--error takes --sd15 whole, or the embedded model without")
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        if a.sd15 == "whole":
            write_sd15(folder)
        if a.error:
            return errors(a, folder if a.sd15 else MINI)
        compare(a, folder)


def compare(a, folder):
    if a.gradients:
        cases = gradient_cases(a)
    else:
        cases = sd15(int(a.sd15)) if a.sd15 in ("32", "64") else networks(folder if a.sd15 else MINI)
    known, cases = list(cases), {name: case for name, case in cases.items() if a.only in name}
    if not cases:
        sys.exit(f"--only {a.only!r} is in no measure's name: {', '.join(known)}")
    figures, paths = {}, {}
    for precision, dtype, path in [("f32", torch.float32, "avx2" if AVX2 else None), ("bf16", torch.bfloat16, ROUNDED)]:
        if (precision == "bf16" and not BF16) or a.precision not in (None, precision):
            continue
        ours = ours_on(path, a, folder)
        paths[precision] = ours.name
        stock = candle(a) if a.candle and precision == "f32" else None
        for measure, case in cases.items():
            engines = {"ours": lambda: ours.turn(measure)}
            if stock and "U-Net" in measure:
                engines["candle"] = lambda: stock.turn(measure)
            for name, call in peers(a, case, precision, dtype):
                engines[name] = lambda call=call: turn(call)
                if a.gradients:
                    print("%s, %s %s: %.2f GiB over the weights" % (measure, name, precision, over_weights(call)), flush=True)
            for name, (seconds, ratio) in by_turns(engines, 4 if a.gradients else 6).items():
                figures.setdefault(f"{name} {precision}", {})[measure] = seconds, ratio
                print("%s, %s %s: %.1f ms (%.2f)" % (measure, name, precision, 1e3 * seconds, ratio), flush=True)
            del engines
        for program in filter(None, (ours, stock)):
            program.close()
    show(a, figures, cases, paths)


def peers(a, case, precision, dtype):
    """(name, what is to be called) of the engines beside ours."""
    if a.gradients:
        unet, x, t, c, checkpoints = case
        unet = unet.to(dtype).train()  # without dropout; diffusers checkpoints in training
        return [("torch", torch_gradient(unet, *in_dtype((x, t, c), dtype), checkpoints))]
    module, inputs = case
    openvino = openvino_call(module.float().eval(), inputs, precision)  # measures share networks: the last may be in bf16
    module, inputs = module.to(dtype), in_dtype(inputs, dtype)
    return [("torch", lambda: module(*inputs)), ("openvino", openvino)]


def show(a, figures, cases, paths):
    """Prints the table, and writes it to a.json as [{measure, ours_s, peer, peer_s, ratio, precision, cpu_path}]."""
    print("milliseconds, and in brackets ours over the peer's in the same precision")
    print("%-44s" % "" + "".join("%20s" % name for name in figures))
    rows = []
    for measure in cases:
        line = "%-44s" % measure
        for name, values in figures.items():
            seconds, ratio = values.get(measure, (None, None))
            if seconds is None:  # candle has the U-Net alone
                line += "%20s" % "-"
                continue
            peer, precision = name.split()
            if peer == "ours":
                line += "%20.1f" % (1e3 * seconds)
                continue
            line += "%20s" % ("%.1f (%.2f)" % (1e3 * seconds, ratio))
            ours = figures[f"ours {precision}"][measure][0]
            rows.append({"measure": measure, "ours_s": ours, "peer": peer, "peer_s": seconds, "ratio": ratio, "precision": precision, "cpu_path": paths[precision]})
        print(line)
    if a.json:
        json.dump(rows, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    main()
