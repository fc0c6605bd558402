"""JPEG against Pillow (libjpeg-turbo) at the same quality, 4:2:0."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fluxsr.degradation.jpeg import jpeg, quantisation_tables

QUALITIES = [5, 30, 49, 50, 75, 95, 100]


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


def difference_from_pillow(height: int, width: int) -> torch.Tensor:
    """Mean difference at each quality, 8-bit steps."""
    image = photograph_like(height, width)
    ours = jpeg(image.expand(len(QUALITIES), -1, -1, -1), torch.tensor(QUALITIES)) * 255
    theirs = np.stack([np.asarray(encoded(image, quality)) for quality in QUALITIES])
    assert ours.shape == (len(QUALITIES), 3, height, width)
    return (ours - torch.from_numpy(theirs).permute(0, 3, 1, 2)).abs().mean((1, 2, 3))


def test_agrees_with_pillow_to_a_third_of_a_step():
    """Single pixels differ more: the integer DCT of libjpeg may round a coefficient otherwise."""
    assert difference_from_pillow(96, 96).max() < 0.33


@pytest.mark.parametrize("size", [(53, 61), (54, 62), (16, 8), (7, 5), (1, 1)])
def test_agrees_with_pillow_at_borders(size: tuple[int, int]):
    """One such coefficient weighs more in a small image."""
    assert difference_from_pillow(*size).max() < 1.5


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
