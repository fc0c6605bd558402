"""How the photographs of this folder were made: CID22 validation pictures, degraded by our own "mild" preset.

    python examples/make.py FOLDER_OF_PNG examples

FOLDER_OF_PNG holds the sources named below, 512x512; the results are a quarter of the size. Attribution: NOTICE.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image

from fluxsr.degradation import PRESETS, degrade
from fluxsr.imaging.io import to_pil, to_tensor

SOURCES = {"building_lr.jpg": "2079234", "church_lr.jpg": "2936831"}


def main(sources: Path, out: Path) -> None:
    for seed, (name, stem) in enumerate(SOURCES.items()):
        hr = to_tensor(Image.open(sources / f"{stem}.png").convert("RGB"))
        lr = degrade(hr, PRESETS["mild"], torch.Generator().manual_seed(seed))
        to_pil(lr).save(out / name, quality=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
