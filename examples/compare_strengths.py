"""One picture at several strengths of the step, side by side: the model is loaded once.

    python examples/compare_strengths.py PHOTOGRAPH OUT.png [STRENGTH ...]

Strength 0 is the autoencoder alone, 1 the whole step; the bundled model's own is 0.8.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import fluxsr

LABEL = 24  # pixels


def main(photograph: Path, out: Path, strengths: list[float]) -> None:
    images = [fluxsr.upscale(photograph, strength=strength) for strength in strengths]
    width, height = images[0].size
    page = Image.new("RGB", (width * len(images), height + LABEL), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for column, (strength, image) in enumerate(zip(strengths, images, strict=True)):
        page.paste(image, (column * width, 0))
        draw.text((column * width + 4, height + 2), f"strength {strength:g}", fill="black", font=font)
    page.save(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [float(word) for word in sys.argv[3:]] or [0, 0.4, 0.8, 1])
