#!/usr/bin/env bash
# bash recipes/tiny/make.sh [key=value ...]
# The bundled model from nothing: seven stages into runs/tiny/, each resumed where it stopped. On a GPU give more:
# bash recipes/tiny/make.sh run.batch=64
# The overrides go to the trained stages; pairs have no run.* options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
stage() { fluxsr train "$1" --recipe "recipes/tiny/$1.yaml" --out "runs/tiny/$1" "${@:2}"; }
stage autoencoder "$@"
fluxsr train autoencoder --recipe recipes/tiny/decoder.yaml --out runs/tiny/decoder "$@"
stage perceptual "$@"
stage teacher "$@"
fluxsr pairs invert --recipe recipes/tiny/pairs.yaml --out runs/tiny/pairs
stage distill "$@"
fluxsr train distill --recipe recipes/tiny/anneal.yaml --out runs/tiny/distill "$@"
fluxsr train distill --recipe recipes/tiny/detail.yaml --out runs/tiny/detail "$@"
echo "model: runs/tiny/detail/model"
