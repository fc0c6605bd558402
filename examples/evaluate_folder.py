"""The bundled model and bicubic interpolation, scored on pictures of your own: a Markdown table.

    python examples/evaluate_folder.py FOLDER_OF_HR

Each picture is reduced to a quarter by a light degradation (preset "mild") and enlarged again. Sides should be
multiples of 4, and at least 128 pixels. `fluxsr evaluate` does this for benchmarks, with a report to look at.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

import fluxsr
from fluxsr.degradation import PRESETS, degrade
from fluxsr.evaluation.folder_scores import score_folders
from fluxsr.evaluation.folders import list_images, load_image
from fluxsr.evaluation.tables import markdown, table_of
from fluxsr.imaging.io import to_pil, write
from fluxsr.imaging.resize import bicubic


def main(folder: Path, metrics: tuple[str, ...] = ("psnr", "ssim", "piqe")) -> str:
    pipe = fluxsr.load("bundled")
    with tempfile.TemporaryDirectory() as scratch:
        for number, (stem, path) in enumerate(list_images(folder).items()):
            hr = load_image(path).float()  # (1,3,H,W)
            lr = degrade(hr, PRESETS["mild"], torch.Generator().manual_seed(number))
            made = {"bicubic": bicubic(lr, hr.shape[-2:]), "bundled": pipe(lr, output_type="pt").images}
            for name, image in made.items():
                write(to_pil(image), Path(scratch, name, f"{stem}.png"))
        reports = [score_folders(Path(scratch, name), folder, metrics=metrics) for name in ("bicubic", "bundled")]
        return markdown(table_of(reports))


if __name__ == "__main__":
    print(main(Path(sys.argv[1])), end="")
