"""The picture of docs/bundled-model.md: centres of a few validation crops, bicubic, the bundled model, the photograph.

fluxsr degrade runs/val/HR -o runs/val/mild --preset mild
python examples/validation_crops.py runs/val/mild runs/val/HR docs/images/validation_crops.jpg 1025469 1279330 ...
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

import fluxsr

SIDE = 224


def centre(image: Image.Image) -> Image.Image:
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return image.crop((left, top, left + SIDE, top + SIDE))


def main(lr_folder: Path, hr_folder: Path, out: Path, names: list[str]) -> None:
    sheet = Image.new("RGB", (3 * SIDE + 16, len(names) * (SIDE + 8) - 8), "white")
    for row, name in enumerate(names):
        lr = Image.open(lr_folder / f"{name}.png").convert("RGB")
        hr = Image.open(hr_folder / f"{name}.png").convert("RGB")
        images = (lr.resize(hr.size, Image.Resampling.BICUBIC), fluxsr.upscale(lr), hr)
        for column, image in enumerate(images):
            sheet.paste(centre(image), (column * (SIDE + 8), row * (SIDE + 8)))
    sheet.save(out, quality=92)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
