"""Inversion: how well does the noise of a photograph lead back to it, over solver and steps?

    python benchmarks/roundtrip.py --base runs/tiny/teacher/base --photos data/photos/val-000.tar

Prints the root mean square error of the latent (rms about 1) after noise and back, and that of the control that comes
down from fresh Gaussian noise.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from fluxsr.backbone.loading import load_autoencoder
from fluxsr.imaging.photographs import read_photographs
from fluxsr.keyed import keyed_noise
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.invert import round_trip
from fluxsr.pairs.teacher import load_teacher
from fluxsr.training.stages import encode_photos

SOLVERS: list[tuple[Any, int]] = [
    ("euler", 4), ("euler", 8), ("euler", 16), ("euler", 32),
    ("midpoint", 8), ("midpoint", 16), ("heun", 4), ("heun", 8), ("heun", 16),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--photos", nargs="+", required=True)
    parser.add_argument("--count", type=int, default=4)
    options = parser.parse_args()
    device = torch.device("cpu")
    vae = load_autoencoder(options.base, device)
    photos = [photo[:, :512, :512] for photo in read_photographs(options.photos, options.count)[1]]
    z_0 = torch.stack([z.float() for z in encode_photos(vae, photos)])
    fresh = torch.stack([keyed_noise(z_0.shape[1:], k) for k in range(len(z_0))])
    prompts = [""] * len(z_0)
    print("| solver | steps | evaluations each way | round trip | fresh noise |\n|---|---|---|---|---|")
    for solver, steps in SOLVERS:
        teacher = load_teacher(PairsConfig(base=options.base, solver=solver, steps=steps), prompts, device, None)
        errors = torch.tensor(round_trip(teacher, z_0, teacher.invert(z_0, prompts), fresh, prompts))
        own, control = errors.square().mean(0).sqrt().tolist()
        print(f"| {solver} | {steps} | {steps * (1 + (solver != 'euler'))} | {own:.3f} | {control:.3f} |", flush=True)


if __name__ == "__main__":
    main()
