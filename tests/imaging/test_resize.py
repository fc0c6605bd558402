"""Bicubic resizing agrees with Pillow's and keeps to the size that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.imaging.resize import bicubic, bicubic_rows


@pytest.mark.parametrize("size", [(64, 80), (37, 91), (8, 10), (17, 20)])
def test_equals_pillow(size: tuple[int, int]) -> None:
    plane = torch.rand(16, 20, generator=torch.Generator().manual_seed(0))
    ours = bicubic(plane.expand(1, 3, 16, 20), size)[0, 0]
    theirs = Image.fromarray(plane.numpy()).resize(size[::-1], Image.Resampling.BICUBIC)
    torch.testing.assert_close(ours, torch.tensor(np.array(theirs)).clamp(0, 1), rtol=0, atol=1e-5)


def test_stays_in_range_and_keeps_flat_areas() -> None:
    step = (torch.arange(20) > 9).float().expand(1, 3, 16, 20)
    enlarged = bicubic(step, (64, 80))
    assert enlarged.min() == 0 and enlarged.max() == 1
    flat = torch.full((1, 3, 16, 20), 0.3)
    torch.testing.assert_close(bicubic(flat, (50, 33)), torch.full((1, 3, 50, 33), 0.3))


def test_same_size_is_the_image_itself() -> None:
    image = torch.rand(1, 3, 16, 16)
    assert bicubic(image, (16, 16)) is image


@pytest.mark.parametrize("size", [(40, 30), (41, 37), (160, 120), (20, 15)])
def test_rows_are_those_of_the_whole(size: tuple[int, int]) -> None:
    image = torch.rand(1, 2, 20, 15, generator=torch.Generator().manual_seed(0))
    whole = bicubic_rows(image, size, 0, size[0])
    assert (whole.clamp(0, 1) - bicubic(image, size)).abs().max() < 1e-5
    for first in range(0, size[0], 7):
        last = min(first + 7, size[0])
        assert torch.allclose(bicubic_rows(image, size, first, last), whole[..., first:last, :], atol=1e-6)


def test_rows_need_no_other_rows_of_the_image() -> None:
    image = torch.rand(1, 1, 50, 8)
    far = image.clone()
    far[..., 20:, :] = torch.nan
    rows = bicubic_rows(far, (200, 32), 0, 64)
    assert torch.allclose(rows, bicubic_rows(image, (200, 32), 0, 64))
