"""What to measure the runs of search.py against, on the same photographs: bicubic, the bundled model, its autoencoder.

    python benchmarks/search_references.py [key=value ...]

Overrides are those of the groups' recipes. The bundled autoencoder is scored as those of the first group are.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ablation import table
from costs import step_of
from scores import middles, model, scores, upscaled
from search import RECIPES, groups

import fluxsr.pretrained
from fluxsr import recipe
from fluxsr.imaging.resize import bicubic
from fluxsr.training.config import AutoencoderConfig, DistillConfig


def main(overrides: list[str]) -> None:
    group = groups()["student"]
    photos = middles(recipe.load(DistillConfig, RECIPES / "distill.yaml", [*group.shared, *overrides]).data)
    columns = [column for column in group.columns if column != "s_train"]
    ways = {
        "bicubic": lambda lr: bicubic(lr, (4 * lr.shape[2], 4 * lr.shape[3])),
        "bundled": model("bundled"),
        "bundled, strength 1": model("bundled", strength=1.0),
    }
    print(table({name: [upscaled(way, photos, columns)] for name, way in ways.items()}, columns))
    group = groups()["autoencoder"]
    photos = middles(recipe.load(AutoencoderConfig, RECIPES / "autoencoder.yaml", [*group.shared, *overrides]).data)
    reconstruct, _ = step_of(Path(fluxsr.pretrained.__path__[0]), "bf16")
    found = {"bundled autoencoder": [scores(map(reconstruct, photos), photos, "")]}
    print("\n" + table(found, ["psnr", "ssim", "mid_db", "hf_db", "grid4", "grid8"]))


if __name__ == "__main__":
    main(sys.argv[1:])
