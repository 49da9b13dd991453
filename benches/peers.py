"""Seconds of each network beside torch's and OpenVINO's, in one run:
benches/peers [--sd15 32|64|whole] [--gradients | --start] [--avx2] [--json FILE].

Medians on this machine, at the models' own sizes: first Semblance's own (cargo bench --bench networks, f32 and bf16), then
the peers' with the same shapes. `--sd15 SIDE` takes a U-Net of Stable Diffusion 1.5's shape with random weights on SIDE x
SIDE latents, `--sd15 whole` all networks of such a model (for about ten minutes, with 20 GB of memory and 2 of disk).
`--gradients` times forward and backward to latents and text instead, beside torch alone. `--start` times ours from nothing
loaded to the first step, for a whole model of that shape (it takes 9 GB of disk for that long). `--avx2` holds everybody to
AVX2, and so to f32. benches/peers sets up what this needs outside the checkout. Not a test: it asserts nothing.
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
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MINI = f"{REPO}/models/mini"
BF16 = not AVX2 and "avx512_bf16" in open("/proc/cpuinfo").read()


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
        for path in ["auto"] + ["avx512bf16"] * BF16:
            print(f"SEMBLANCE_CPU={path}", flush=True)
            subprocess.run(cmd, cwd=REPO, env={**os.environ, "SEMBLANCE_CPU": path}, check=True)


def median(f):
    """Seconds of a call: the median of about a second's calls, three at least."""
    f()
    times, begun = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - begun < 1 and len(times) < 101):
        t = time.perf_counter()
        f()
        times.append(time.perf_counter() - t)
    return statistics.median(times)


def torch_seconds(module, inputs, dtype):
    module = module.to(dtype)
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
    return median(lambda: module(*inputs))


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


def torch_gradients(unet, x, t, c, checkpoints, dtype):
    """Seconds of a forward and a backward pass, and GiB over the weights at the peak."""
    unet = unet.to(dtype).train()  # without dropout; diffusers checkpoints in training
    unet.enable_gradient_checkpointing() if checkpoints else unet.disable_gradient_checkpointing()
    x, c = (v.to(dtype).requires_grad_() for v in (x, c))
    g = torch.randn_like(x)

    def gradient():
        with torch.enable_grad():
            torch.autograd.grad(unet(x, t, c).sample, (x, c), g)

    weights = resident("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # Linux's word for: forget the highest so far
    seconds = median(gradient)
    return seconds, resident("VmHWM") - weights


def openvino_seconds(model, inputs, precision):
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"})
    arrays = [x.numpy() for x in inputs]
    return median(lambda: compiled(arrays))


def ours(a, path, folder):
    """{measure: seconds} of cargo bench --bench networks, on the CPU path asked for (None: its own choice)."""
    with tempfile.NamedTemporaryFile(suffix=".json") as f:
        extra = {"32": ["--sd15"], "64": ["--sd15-64"], "whole": [folder]}.get(a.sd15, [])
        extra += ["--gradients"] * a.gradients + ["--alone"] * (not a.gradients)
        env = {**os.environ, **({"SEMBLANCE_CPU": path} if path else {})}
        cmd = ["cargo", "bench", "-q", "--bench", "networks", "--", *extra, "--json", f.name]
        if subprocess.run(cmd, cwd=REPO, env=env, stdout=subprocess.DEVNULL).returncode:
            return {}
        return {row["measure"]: row["ours_s"] for row in json.load(open(f.name))}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sd15", choices=("32", "64", "whole"))
    p.add_argument("--gradients", action="store_true")
    p.add_argument("--start", action="store_true")
    p.add_argument("--avx2", action="store_true")
    p.add_argument("--json")
    a = p.parse_args()
    if a.start:
        return start(a)
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        if a.sd15 == "whole":
            if a.gradients:
                p.error("--gradients takes --sd15 32 or 64")
            write_sd15(folder)
        compare(a, folder)


def compare(a, folder):
    figures = {"ours f32": ours(a, "avx2" if AVX2 else None, folder)}
    if BF16:
        figures["ours bf16"] = ours(a, "avx512bf16", folder)
    if a.gradients:
        return compare_gradients(a, figures)
    cases = sd15(int(a.sd15)) if a.sd15 in ("32", "64") else networks(folder if a.sd15 else MINI)
    precisions = ("f32",) if AVX2 else ("f32", "bf16")
    for name in ("torch", "openvino"):
        figures |= {f"{name} {precision}": {} for precision in precisions}
    for measure, (module, inputs) in cases.items():
        module.float().eval()  # measures share networks, and the last left them in bf16
        model = ov.convert_model(module, example_input=tuple(inputs))
        for precision in precisions:
            figures[f"openvino {precision}"][measure] = openvino_seconds(model, inputs, precision)
        del model
        for precision in precisions:
            dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
            figures[f"torch {precision}"][measure] = torch_seconds(module, inputs, dtype)
    show(a, figures, cases)


def compare_gradients(a, figures):
    cases = gradient_cases(a)
    for name, dtype in (("torch f32", torch.float32), ("torch bf16", torch.bfloat16)):
        figures[name] = {}
        for measure, case in cases.items():
            figures[name][measure], over = torch_gradients(*case, dtype)
            print("%s, %s: %.2f GiB over the weights" % (measure, name, over))
    show(a, figures, cases)


def show(a, figures, cases):
    """Prints the table, and writes it to a.json."""
    print("milliseconds, and in brackets ours over the peer's in the same precision")
    print("%-44s" % "" + "".join("%20s" % name for name in figures))
    for measure in cases:
        row = "%-44s" % measure
        for name, values in figures.items():
            if measure not in values:
                row += "%20s" % "-"
                continue
            mine = figures.get("ours " + name.split()[1], {}).get(measure)
            ratio = "" if name.startswith("ours") or mine is None else " (%.2f)" % (mine / values[measure])
            row += "%20s" % ("%.1f%s" % (1e3 * values[measure], ratio))
        print(row)
    if a.json:
        json.dump(figures, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    main()
