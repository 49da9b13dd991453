"""Train the CLIP pair on renders and their captions (DIR/raw, made by latents.py): python clip.py --runs DIR [--minutes M].

Makes DIR/tokenizer, DIR/text_encoder and DIR/image_encoder. The U-Net reads the text encoder's last hidden states; the
pair as a whole is for losses that compare a picture with a prompt.
Loss: symmetric cross-entropy over a batch; equal captions count as equal answers.
"""
import argparse
import glob
import time

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

import captions
from common import setup


def make(vocab):
    t = CLIPTextConfig(
        vocab_size=vocab, hidden_size=192, intermediate_size=768, projection_dim=128, num_hidden_layers=4, num_attention_heads=3,
        max_position_embeddings=captions.MAX, bos_token_id=vocab - 2, eos_token_id=vocab - 1, pad_token_id=vocab - 1, hidden_act="quick_gelu",
    )
    v = CLIPVisionConfig(hidden_size=192, intermediate_size=768, projection_dim=128, num_hidden_layers=4, num_attention_heads=3, image_size=128, patch_size=16, hidden_act="quick_gelu")
    return CLIPTextModelWithProjection(t), CLIPVisionModelWithProjection(v)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--runs", default="runs")
    a.add_argument("--device", default="cpu")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--init", help="folder with text_encoder and image_encoder to start from")
    a.add_argument("--minutes", type=float, default=4.5)
    a.add_argument("--batch", type=int, default=128)
    a = a.parse_args()
    dev = setup(a)
    tok = captions.make_tokenizer(f"{a.runs}/tokenizer")
    ds = [np.load(f) for f in sorted(glob.glob(f"{a.runs}/raw/16x16_*.npz"))]
    x = np.concatenate([d["pictures"] for d in ds]).reshape(-1, 128, 128, 3)
    caps = [str(c) for d in ds for c in d["captions"].reshape(-1)]
    ids = torch.tensor(tok(caps), device=dev)
    uniq = {c: i for i, c in enumerate(sorted(set(caps)))}
    kind = torch.tensor([uniq[c] for c in caps], device=dev)
    print(len(x), "pictures,", len(uniq), "captions", flush=True)
    if a.init:
        tm, vm = CLIPTextModelWithProjection.from_pretrained(f"{a.init}/text_encoder"), CLIPVisionModelWithProjection.from_pretrained(f"{a.init}/image_encoder")
    else:
        tm, vm = make(int(ids.max()) + 1)
    tm, vm = tm.to(dev), vm.to(dev)
    scale = torch.nn.Parameter(torch.tensor(2.6, device=dev))
    ps = [*tm.parameters(), *vm.parameters(), scale]
    opt = torch.optim.AdamW(ps, 6e-4, betas=(0.9, 0.98), weight_decay=0.05)
    rng, t0, i, avg, end = np.random.default_rng(), time.time(), 0, None, a.minutes * 60
    while (gone := (time.time() - t0) / end) < 1:
        for g in opt.param_groups:
            g["lr"] = 6e-4 * min(1, (i + 1) / 30) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * gone)))
        ix = rng.integers(0, len(x), a.batch)
        flip = rng.random() < 0.5
        y = torch.from_numpy(x[ix][:, :, ::-1].copy() if flip else x[ix]).to(dev).permute(0, 3, 1, 2).float() / 127.5 - 1
        ix = torch.from_numpy(ix).to(dev)
        with torch.autocast(dev.type, torch.bfloat16):
            te, ve = tm(ids[ix]).text_embeds, vm(y).image_embeds
        te, ve = F.normalize(te.float(), dim=-1), F.normalize(ve.float(), dim=-1)
        lg = scale.exp().clamp(max=100) * te @ ve.T
        same = (kind[ix][:, None] == kind[ix][None]).float()
        tg = same / same.sum(1, keepdim=True)
        loss = -((tg * lg.log_softmax(1)).sum(1).mean() + (tg * lg.T.log_softmax(1)).sum(1).mean()) / 2
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(ps, 1.0)
        opt.step()
        i += 1
        avg = loss.item() if avg is None else 0.95 * avg + 0.05 * loss.item()
        if i % 25 == 0:
            print("%d  loss %.3f  chance %.3f  %.2f s/step" % (i, avg, float(np.log(a.batch)), (time.time() - t0) / i), flush=True)
    for m, name in ((tm, "text_encoder"), (vm, "image_encoder")):
        m.save_pretrained(f"{a.runs}/{name}")


if __name__ == "__main__":
    main()
