"""What repeats at the period is found, whatever it is; what does not is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fluxsr.imaging.lattice import lattice


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def centred_cell(period: int) -> Tensor:
    cell = noise(1, 3, period, period)
    return cell - cell.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("period", [4, 16])
def test_a_pattern_is_its_own_lattice(period: int) -> None:
    pattern = centred_cell(period).repeat(1, 1, 6, 5)
    torch.testing.assert_close(lattice(pattern, period, 3.0), pattern)
    torch.testing.assert_close(lattice(pattern + 7, period, 3.0), pattern, atol=1e-5, rtol=1e-5)  # a level is none


def test_a_pattern_that_fades_is_followed() -> None:
    """Strong at the left, gone at the right: the mean reaches over a few periods only."""
    fade = torch.linspace(1, 0, 20).repeat_interleave(8).view(1, 1, 1, -1)
    pattern = centred_cell(8).repeat(1, 1, 8, 20) * fade
    left = pattern - lattice(pattern, 8, 2.0)
    assert float(left.square().mean()) < 0.02 * float(pattern.square().mean())


def test_of_noise_it_takes_little_and_of_slopes_next_to_nothing() -> None:
    grain = noise(1, 3, 256, 256)
    taken = float(lattice(grain, 16, 3.0).square().mean())
    assert 1 / (4 * 3.1416 * 9) < taken < 0.02  # more near the border, where the mean is over fewer
    slope = torch.linspace(0, 1, 256).expand(1, 1, 256, 256)
    assert float(lattice(slope, 16, 3.0).abs().max()) < 0.04  # within a period a slope looks like a pattern, of 1/16


def test_images_are_seen_each_alone() -> None:
    both = noise(2, 3, 64, 64)
    torch.testing.assert_close(lattice(both, 16, 2.0)[1:], lattice(both[1:], 16, 2.0))


def test_an_image_of_one_period_has_none() -> None:
    assert not lattice(noise(1, 3, 16, 64), 16, 3.0).any()
    assert lattice(noise(1, 3, 32, 64), 16, 3.0).any()
