"""JPEG against Pillow (libjpeg-turbo) at the same quality, 4:2:0."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fluxsr.degradation.jpeg import jpeg, quantisation_tables

QUALITIES = [5, 30, 49, 50, 75, 95, 100]
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*_lr.jpg"))


def photograph_like(height: int, width: int) -> torch.Tensor:
    """Smooth colours with a little grain, 8-bit, (1, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 12, 12, generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    grain = 0.02 * torch.randn(1, 3, height, width, generator=generator)
    return ((smooth + grain).clamp(0, 1) * 255).round() / 255


def encoded(image: torch.Tensor, quality: int) -> Image.Image:
    pixels = (image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=quality, subsampling="4:2:0")
    return Image.open(data)


def difference_from_pillow(image: torch.Tensor, qualities: list[int]) -> torch.Tensor:
    """Absolute difference of every pixel at each quality, grey levels, (Q, 3, H, W)."""
    ours = jpeg(image.expand(len(qualities), -1, -1, -1), torch.tensor(qualities)) * 255
    theirs = np.stack([np.asarray(encoded(image, quality)) for quality in qualities])
    assert ours.shape == (len(qualities), *image.shape[1:])
    return (ours - torch.from_numpy(theirs).permute(0, 3, 1, 2)).abs()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_photographs_agree_with_pillow(path: Path):
    """The stated tolerance, docs/degradation.md. Where libjpeg's integer DCT rounds a coefficient to the other
    side, a block differs by a basis function of that size: many levels, but in few pixels."""
    with Image.open(path) as opened:
        image = torch.from_numpy(np.array(opened)).permute(2, 0, 1)[None] / 255
    found = difference_from_pillow(image, [10, 20, 30, 40, 50, 60, 75, 85, 90, 95, 100])
    assert found.mean((1, 2, 3)).max() < 0.2
    assert (found > 1.5).float().mean((1, 2, 3)).max() < 0.06
    assert found.max() < 32


def test_noisy_gradients_agree_with_pillow():
    assert difference_from_pillow(photograph_like(96, 96), QUALITIES).mean((1, 2, 3)).max() < 0.3


@pytest.mark.parametrize("size", [(53, 61), (54, 62), (16, 8), (7, 5), (12, 4), (5, 2), (1, 1)])
def test_agrees_with_pillow_at_borders(size: tuple[int, int]):
    """One such coefficient weighs more in a small image."""
    assert difference_from_pillow(photograph_like(*size), QUALITIES).mean((1, 2, 3)).max() < 1.5


@pytest.mark.parametrize("quality", [22, 30, 75, 90])
def test_flat_colours_are_pillows_to_the_bit(quality: int):
    """Steps of 4 and 28 put the mean of a block on halves, which must not all be rounded to even."""
    flat = torch.rand(64, 3, 1, 1, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    flat = flat.expand(-1, -1, 16, 16)
    theirs = np.stack([np.asarray(encoded(image[None], quality)) for image in flat])
    ours = jpeg(flat, torch.full((64,), quality)) * 255
    assert torch.equal(ours.round(), torch.from_numpy(theirs).permute(0, 3, 1, 2).float())


def test_tables_are_those_pillow_writes():
    luma, chroma = quantisation_tables(torch.tensor(QUALITIES))
    for i, quality in enumerate(QUALITIES):
        tables = encoded(photograph_like(16, 16), quality).quantization
        assert luma[i].int().tolist() == list(tables[0])
        assert chroma[i].int().tolist() == list(tables[1])


def test_lower_quality_loses_more():
    image = photograph_like(64, 64).expand(3, -1, -1, -1)
    loss = (jpeg(image, torch.tensor([95, 50, 10])) - image).square().mean((1, 2, 3))
    assert loss[0] < loss[1] < loss[2]


def test_result_does_not_depend_on_neighbours():
    images = torch.cat([photograph_like(24, 32), torch.rand(1, 3, 24, 32)])
    alone = jpeg(images[:1], torch.tensor([40]))
    assert torch.equal(jpeg(images, torch.tensor([40, 80]))[:1], alone)
