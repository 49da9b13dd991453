#!/bin/sh
# The embedded model from nothing: renderer -> pictures -> VAE, CLIP, U-Net -> models/mini.
# make.sh [RUNS] [DEVICE]; every stage resumes where it stopped. Minutes are for two free cores.
set -eu
cd "$(dirname "$0")"
runs=${1:-runs} device=${2:-cpu} py=${PYTHON:-python3}
cargo build --release -p semblance-atelier --manifest-path ../Cargo.toml
atelier=$(pwd)/../target/release/atelier
mkdir -p "$runs"
[ -e "$runs/pool.npy" ] || $py procedural.py "$runs/pool.npy" 3000
[ -e "$runs/renders.npy" ] || $py data.py renders --atelier "$atelier" --first 1000 --n 300 --size 144 --threads 2 --out "$runs/renders.npy"
[ -e "$runs/val.npz" ] || $py data.py groups --atelier "$atelier" --first 900000 --n 8 --out "$runs/val.npz"
[ -e "$runs/lut.npz" ] || $py data.py groups --atelier "$atelier" --first 910000 --n 20 --out "$runs/lut.npz"
[ -e "$runs/vae" ] || $py vae.py --runs "$runs" --device "$device" --minutes "${VAE_MINUTES:-40}"
[ -e "$runs/raw" ] || $py latents.py render --runs "$runs" --atelier "$atelier" --minutes "${RENDER_MINUTES:-10}"
[ -e "$runs/text_encoder" ] || $py clip.py --runs "$runs" --device "$device" --minutes "${CLIP_MINUTES:-4.5}"
[ -e "$runs/lat_16x16.npz" ] || $py latents.py encode --runs "$runs" --device "$device"
$py unet.py --runs "$runs" --device "$device" --minutes "${UNET_MINUTES:-60}" --export ../models/mini
$py validate.py --runs "$runs" --sheet "$runs/sheet.png"
