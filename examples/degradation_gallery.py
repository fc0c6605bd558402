"""The picture of docs/degradation.md: what each stage does alone, and what the presets make of one photograph.

    python examples/degradation_gallery.py PHOTOGRAPH docs/images/degradation.jpg

PHOTOGRAPH is CID22 validation picture 2079234, 512x512 (attribution: NOTICE); any other works too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fluxsr.degradation import PRESETS, degrade
from fluxsr.degradation.jpeg import jpeg
from fluxsr.degradation.kernels import filter_images, gaussian_kernels, sinc_kernels
from fluxsr.degradation.noise import add_gaussian, add_poisson
from fluxsr.imaging.io import to_pil, to_tensor

SIDE, GAP, LABEL = 192, 6, 18  # pixels
Panel = tuple[str, Tensor]


def blurred(hr: Tensor, sigma: float, across: float, beta: float = 1.0, plateau: bool = False) -> Tensor:
    """One kernel over the whole support, axes turned by 0.6 radians."""
    numbers = [torch.tensor([value]) for value in (sigma, across, 0.6, beta)]
    return filter_images(hr, gaussian_kernels(*numbers, torch.tensor([plateau]), torch.tensor([10.0])))


def stages(hr: Tensor) -> list[Panel]:
    """Each operation alone, at HR size."""
    generator = torch.Generator().manual_seed(0)
    sigma, scale, colour, grey = (torch.tensor([value]) for value in (25.0, 2.0, False, True))
    return [
        ("HR", hr),
        ("blur: isotropic, sigma 2", blurred(hr, 2.0, 2.0)),
        ("blur: anisotropic, 4 and 0.7", blurred(hr, 4.0, 0.7)),
        ("blur: plateau, beta 2", blurred(hr, 3.0, 3.0, 2.0, plateau=True)),
        ("sinc, cutoff pi/3", filter_images(hr, sinc_kernels(torch.tensor([torch.pi / 3]), torch.tensor([10.0])))),
        ("Gaussian noise, colour, 25", add_gaussian(hr, sigma, colour, generator)),
        ("Gaussian noise, grey, 25", add_gaussian(hr, sigma, grey, generator)),
        ("Poisson noise, colour, 2", add_poisson(hr, scale, colour, generator)),
        ("Poisson noise, grey, 2", add_poisson(hr, scale, grey, generator)),
        ("JPEG, quality 15", jpeg(hr, torch.tensor([15]))),
    ]


def presets(hr: Tensor) -> list[Panel]:
    """Whole degradations, LR pixels shown large."""
    counts = {"bicubic": 1, "mild": 4, "stablesr": 5, "realesrgan": 5}
    return [
        (f"{name}, seed {seed}", degrade(hr, PRESETS[name], torch.Generator().manual_seed(seed)))
        for name, count in counts.items()
        for seed in range(count)
    ]


def sheet(panels: list[Panel], columns: int = 5) -> Image.Image:
    """Panels with their names below, enlarged by whole pixels to SIDE."""
    rows = -(-len(panels) // columns)
    page = Image.new("RGB", (columns * (SIDE + GAP) - GAP, rows * (SIDE + LABEL + GAP) - GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for index, (name, image) in enumerate(panels):
        x, y = index % columns * (SIDE + GAP), index // columns * (SIDE + LABEL + GAP)
        page.paste(to_pil(image.clamp(0, 1)).resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y))
        draw.text((x + 2, y + SIDE + 1), name, fill="black", font=font)
    return page


def main(photograph: Path, out: Path) -> None:
    hr = to_tensor(Image.open(photograph).convert("RGB"))
    small = hr[..., 150 : 150 + SIDE, 180 : 180 + SIDE]
    large = hr[..., 64 : 64 + 2 * SIDE, 96 : 96 + 2 * SIDE]
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet(stages(small) + presets(large)).save(out, quality=82)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
