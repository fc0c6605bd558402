"""Degradation in figures: how much the presets lose, how near our JPEG is to Pillow's, what it costs.

    python benchmarks/degradation.py FOLDER

FOLDER holds photographs; crops of 256x256 pixels from their middle are used.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fluxsr.degradation import PRESETS, degrade_samples
from fluxsr.degradation.jpeg import jpeg
from fluxsr.imaging.io import to_tensor

SIDE = 256


def photographs(folder: Path) -> Tensor:
    """Middle crops of all photographs that are large enough, (B,3,256,256)."""
    crops = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
            image = to_tensor(Image.open(path))
            top, left = ((side - SIDE) // 2 for side in image.shape[-2:])
            crops += [image[..., top : top + SIDE, left : left + SIDE]] if min(top, left) >= 0 else []
    return torch.cat(crops)


def seeded(count: int, seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1_000_003 * seed + k) for k in range(count)]


def preset_table(hr: Tensor, draws: int) -> None:
    clean = degrade_samples(hr, PRESETS["bicubic"], seeded(1, 0))
    print("| preset | PSNR of the LR image against bicubic's, dB: 10 % | median | 90 % |\n|---|---|---|---|")
    for name in ("mild", "stablesr", "realesrgan"):
        found = []
        for draw in range(draws):
            lr = degrade_samples(hr, PRESETS[name], seeded(len(hr), draw))
            found.append(-10 * (lr - clean).square().mean((1, 2, 3)).log10())
        low, middle, high = torch.cat(found).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
        print(f"| {name} | {low:.1f} | {middle:.1f} | {high:.1f} |")


def jpeg_table(hr: Tensor) -> None:
    print("\n| quality | difference from Pillow, grey levels: mean | more than 1 | greatest |\n|---|---|---|---|")
    for quality in (10, 30, 50, 75, 90, 95, 100):
        ours = (jpeg(hr, torch.full((len(hr),), quality)) * 255).round()
        found = torch.stack([(a - b).abs() for a, b in zip(ours, map(pillow(quality), hr), strict=True)])
        share = 100 * (found > 1).float().mean()
        print(f"| {quality} | {found.mean():.3f} | {share:.1f} % | {found.max():.0f} |")


def pillow(quality: int) -> Callable[[Tensor], Tensor]:
    def compressed(image: Tensor) -> Tensor:
        data = io.BytesIO()
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(data, "JPEG", quality=quality, subsampling="4:2:0")
        return torch.from_numpy(np.array(Image.open(data))).permute(2, 0, 1).float()

    return compressed


def cost_table(hr: Tensor, rounds: int) -> None:
    print("\n| samples in a group | realesrgan, ms per 256x256 image |\n|---|---|")
    hr = hr[: len(hr) - len(hr) % 8]
    for size in (1, 4, 8):
        start = time.perf_counter()
        for draw in range(rounds):
            degrade_samples(hr, PRESETS["realesrgan"], seeded(len(hr) // size, draw))
        print(f"| {size} | {(time.perf_counter() - start) / rounds / len(hr) * 1000:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=5, help="degradations of every photograph")
    options = parser.parse_args()
    hr = photographs(options.folder)
    print(f"{len(hr)} photographs\n")
    preset_table(hr, options.draws)
    jpeg_table(hr)
    cost_table(hr, options.draws)


if __name__ == "__main__":
    main()
