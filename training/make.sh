#!/bin/sh
# The embedded model from nothing: renderer -> pictures -> VAE, CLIP, U-Net -> models/mini.
# make.sh [RUNS] [DEVICE]. What is finished is not made again (RUNS/done lists it; delete a line, and
# those after it, to make a stage anew); a training that was cut off goes on from its checkpoint.
# Minutes are for two free cores.
set -eu
cd "$(dirname "$0")"
runs=${1:-runs} device=${2:-cpu} py=${PYTHON:-python3}
mkdir -p "$runs"
touch "$runs/done"

once() { # once STAGE COMMAND...
    stage=$1
    shift
    grep -qx "$stage" "$runs/done" && return
    echo "== $stage"
    "$@"
    echo "$stage" >>"$runs/done"
}

cargo build --release --manifest-path ../Cargo.toml -p semblance-atelier
atelier=${CARGO_TARGET_DIR:-$(pwd)/../target}/release/atelier
once procedural "$py" procedural.py "$runs/pool.npy" 3000
once renders "$py" data.py renders --atelier "$atelier" --first 1000 --n 1400 --size 144 --threads 2 --out "$runs/renders.npy"
once validation "$py" data.py groups --atelier "$atelier" --first 900000 --n 8 --out "$runs/val.npz"
once lut "$py" data.py groups --atelier "$atelier" --first 910000 --n 20 --out "$runs/lut.npz"
once vae "$py" vae.py --runs "$runs" --device "$device" --compile --minutes "${VAE_MINUTES:-70}"
once scenes "$py" latents.py render --runs "$runs" --atelier "$atelier" --minutes "${RENDER_MINUTES:-20}"
once clip "$py" clip.py --runs "$runs" --device "$device" --minutes "${CLIP_MINUTES:-4.5}"
once latents "$py" latents.py encode --runs "$runs" --device "$device" --compile
once unet "$py" unet.py --runs "$runs" --device "$device" --minutes "${UNET_MINUTES:-140}" --export ../models/mini
once refine "$py" refine.py --runs "$runs" --device "$device" --atelier "$atelier" --compile --minutes "${REFINE_MINUTES:-75}" --export ../models/mini
"$py" validate.py --runs "$runs" --sheet "$runs/sheet.png"
