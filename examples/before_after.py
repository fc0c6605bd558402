"""The README's picture: every example enlarged by bicubic interpolation (left) and by the bundled model (right).

python examples/before_after.py examples docs/images/before_after.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

import fluxsr


def main(folder: Path, out: Path) -> None:
    rows = []
    for path in sorted(folder.glob("*_lr.jpg")):
        lr = Image.open(path).convert("RGB")
        hr = fluxsr.upscale(lr)
        rows.append((lr.resize(hr.size, Image.Resampling.BICUBIC), hr))
    width, height = rows[0][1].size
    sheet = Image.new("RGB", (2 * width + 8, len(rows) * (height + 8) - 8), "white")
    for index, (before, after) in enumerate(rows):
        sheet.paste(before, (0, index * (height + 8)))
        sheet.paste(after, (width + 8, index * (height + 8)))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
