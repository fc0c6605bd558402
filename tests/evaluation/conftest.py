"""Images that any machine makes alike: NumPy's PCG64 stream and integer arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor


def make_pair(seed: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """(sr, hr), 8-bit, (1, 3, H, W) float64 in [0, 1]; sr smoother, with 8 and 16 px patterns."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = 80 + (columns * 5 % 97) // 2 + np.abs(rows * 3 % 128 - 64) + (rows * columns) // 512
    waves = np.broadcast_to(waves[..., None], (height, width, 3))
    hr = waves + draw.integers(-20, 21, (height, width, 3))
    sr = waves + draw.integers(-9, 10, (height, width, 3))
    sr = sr + 4 * (columns % 16 == 0)[..., None] + 3 * (rows % 8 == 0)[..., None]
    sr, hr = (torch.from_numpy(x.clip(0, 255) / 255).permute(2, 0, 1)[None] for x in (sr, hr))
    return sr, hr


@pytest.fixture
def pair() -> Callable[[int, int, int], tuple[Tensor, Tensor]]:
    return make_pair


def save(image: Tensor, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = (image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Folders sr and hr of two pairs, a (192x176) and b (203x181)."""
    for stem, arguments in {"a": (0, 176, 192), "b": (1, 181, 203)}.items():
        sr, hr = make_pair(*arguments)
        save(sr, tmp_path / "sr" / f"{stem}.png")
        save(hr, tmp_path / "hr" / f"{stem}.bmp")
    return tmp_path / "sr", tmp_path / "hr"
