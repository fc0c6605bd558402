#!/usr/bin/env bash
# bash recipes/tiny/make.sh [key=value ...]
# Train the bundled model from scratch with eight commands that write to runs/tiny/. Run it again to resume.
# On a small machine:
# bash recipes/tiny/make.sh run.workers=1
# It takes about 9 hours on two CPU cores, or 1.5 hours with a GPU for the pairs and the main training
# (src/fluxsr/pretrained/README.md). On your own photographs, with sides of 512 pixels or more:
# bash recipes/tiny/make.sh "data.shards=['my/photos']" "data.validation=['my/validation']"
# The overrides apply to every stage. The pairs have no run.* options, so they use only those of data.*.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
stage() { fluxsr train "$1" --recipe "recipes/tiny/$2.yaml" --out "runs/tiny/$2" "${@:3}"; }
data=()
for option in "$@"; do [[ $option != data.* ]] || data+=("$option"); done
stage autoencoder autoencoder "$@"
stage autoencoder decoder "$@"
stage teacher teacher "$@"
fluxsr pairs invert --recipe recipes/tiny/pairs.yaml --out runs/tiny/pairs ${data[@]+"${data[@]}"}
stage distill distill "$@"
stage distill finish "$@"
stage distill finish_pairs "$@"
python recipes/tiny/average.py runs/tiny/model runs/tiny/finish_pairs/model runs/tiny/finish/model
echo "model: runs/tiny/model"
