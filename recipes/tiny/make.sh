#!/usr/bin/env bash
# bash recipes/tiny/make.sh [key=value ...]
# The bundled model from nothing: five stages into runs/tiny/, each resumed where it stopped. On a GPU give more:
# bash recipes/tiny/make.sh run.batch=64
# The overrides go to the four trained stages; pairs have no run.* options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
stage() { fluxsr train "$1" --recipe "recipes/tiny/$1.yaml" --out "runs/tiny/$1" "${@:2}"; }
stage autoencoder "$@"
stage perceptual "$@"
stage teacher "$@"
fluxsr pairs invert --recipe recipes/tiny/pairs.yaml --out runs/tiny/pairs
stage distill "$@"
fluxsr train distill --recipe recipes/tiny/anneal.yaml --out runs/tiny/distill "$@"
echo "model: runs/tiny/distill/model"
