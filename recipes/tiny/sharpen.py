"""Sharpen the targets of the guides, because a small network blurs what it learns.

    python recipes/tiny/sharpen.py data/guides -o runs/tiny/guides

Real-ESRGAN learns from sharpened targets too (https://arxiv.org/abs/2107.10833).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from PIL import Image, ImageFilter

from fluxsr.evaluation.folders import list_images

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guides", type=Path, help="folder with LR/ and HR/")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    shutil.copytree(args.guides / "LR", args.output / "LR", dirs_exist_ok=True)
    (args.output / "HR").mkdir(exist_ok=True)
    for stem, path in list_images(args.guides / "HR").items():
        with Image.open(path) as image:
            sharp = image.convert("RGB").filter(ImageFilter.UnsharpMask(radius=2, percent=50, threshold=0))
        sharp.save(args.output / "HR" / f"{stem}.png")
