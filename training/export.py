"""Write the pipeline, bf16 safetensors in diffusers layout: python export.py --runs DIR --out FOLDER.

FOLDER gets model_index.json, tokenizer, text_encoder (with text_projection.weight), image_encoder, feature_extractor,
vae, unet, scheduler. `StableDiffusionPipeline.from_pretrained(FOLDER)` loads it as it stands.
"""
import argparse
import json
import os
import shutil

import diffusers
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file


def part(src, dst, name, rename=lambda k: k, edit=lambda c: c):
    """Copy one part: config, and its weights as bf16."""
    os.makedirs(dst, exist_ok=True)
    c = edit(json.load(open(f"{src}/config.json")))
    for k in ("_name_or_path", "dtype", "torch_dtype"):
        c.pop(k, None)
    json.dump(c, open(f"{dst}/config.json", "w"), indent=2, sort_keys=True)
    names = [f for f in os.listdir(src) if f.endswith(".safetensors")]
    w = {rename(k): v.to(torch.bfloat16).contiguous() for k, v in load_file(f"{src}/{names[0]}").items() if "position_ids" not in k}
    save_file(w, f"{dst}/{name}", metadata={"format": "pt"})


def prefixed(tower):
    """Keys as published CLIP files have them: everything but the projection under `text_model.` or `vision_model.`."""
    return lambda k: k if k.startswith((tower, "text_projection", "visual_projection")) else f"{tower}.{k}"


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--runs", default="runs")
    a.add_argument("--out", required=True)
    a = a.parse_args()
    os.makedirs(a.out, exist_ok=True)
    part(f"{a.runs}/vae", f"{a.out}/vae", "diffusion_pytorch_model.safetensors")
    part(f"{a.runs}/unet", f"{a.out}/unet", "diffusion_pytorch_model.safetensors")
    text = lambda c: {**c, "architectures": ["CLIPTextModel"]}
    part(f"{a.runs}/text_encoder", f"{a.out}/text_encoder", "model.safetensors", prefixed("text_model"), text)
    part(f"{a.runs}/image_encoder", f"{a.out}/image_encoder", "model.safetensors", prefixed("vision_model"))
    shutil.copytree(f"{a.runs}/tokenizer", f"{a.out}/tokenizer", dirs_exist_ok=True)
    DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True, steps_offset=1,
    ).save_pretrained(f"{a.out}/scheduler")
    os.makedirs(f"{a.out}/feature_extractor", exist_ok=True)
    json.dump({
        "image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 128, "width": 128}, "do_center_crop": True, "do_convert_rgb": True,
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3,
        "rescale_factor": 1 / 255, "size": {"shortest_edge": 128},
    }, open(f"{a.out}/feature_extractor/preprocessor_config.json", "w"), indent=2)
    json.dump({
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__, "requires_safety_checker": False,
        "safety_checker": [None, None], "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"], "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    }, open(f"{a.out}/model_index.json", "w"), indent=2)
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(a.out) for f in fs)
    print("%s: %.1f MB" % (a.out, size / 1e6))


if __name__ == "__main__":
    main()
