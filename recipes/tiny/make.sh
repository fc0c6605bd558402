#!/usr/bin/env bash
# bash recipes/tiny/make.sh [key=value ...]
# The bundled model from nothing: eight commands into runs/tiny/, each resumed where it stopped. On a small machine:
# bash recipes/tiny/make.sh run.workers=1
# About 9 hours on two CPU cores, 1.5 with a GPU for the pairs and the main training (src/fluxsr/pretrained/README.md).
# On your own photographs, of 512 px or more a side:
# bash recipes/tiny/make.sh "data.shards=['my/photos']" "data.validation=['my/validation']"
# The overrides go to every stage; the pairs, which have no run.* options, take those of data.* alone.
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
