"""Inversion: how well does the noise of a photograph lead back to it, over solver and steps?

    python benchmarks/roundtrip.py --base runs/tiny/teacher/base --photos data/photos/val-000.tar

Prints the root mean square error of the latent (rms about 1) after noise and back, and that of the control that comes
down from fresh Gaussian noise.
"""

from __future__ import annotations

import argparse

import torch

from fluxsr.backbone.loading import load_base
from fluxsr.pairs.invert import round_trip
from fluxsr.training.dataset import keyed_generator, read_photographs
from fluxsr.training.stages import encode_photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--photos", nargs="+", required=True)
    parser.add_argument("--count", type=int, default=4)
    options = parser.parse_args()
    base = load_base(options.base, torch.device("cpu"), torch.bfloat16)
    photos = [photo[:, :512, :512] for photo in read_photographs(options.photos, options.count)[1]]
    z_0 = torch.stack([z.float() for z in encode_photos(base.vae, photos)])
    print("| solver | steps | evaluations each way | round trip | fresh noise |\n|---|---|---|---|---|")
    with torch.autocast("cpu", torch.bfloat16):
        for solver, steps in (
            ("euler", 4),
            ("euler", 8),
            ("euler", 16),
            ("euler", 32),
            ("midpoint", 8),
            ("midpoint", 16),
        ):
            times = [k / steps for k in range(steps + 1)]
            own, fresh = round_trip(
                base.transformer, base.prompt, z_0, times, 32, keyed_generator(0, 3, 1), solver=solver
            )
            print(
                f"| {solver} | {steps} | {steps * (1 + (solver == 'midpoint'))} | {own:.3f} | {fresh:.3f} |", flush=True
            )


if __name__ == "__main__":
    main()
