"""What repeats at the period is found, whatever it is; what does not is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fluxsr.imaging.lattice import lattice, without_lattice


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def centred_cell(period: int) -> Tensor:
    cell = noise(1, 3, period, period)
    return cell - cell.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("period", [4, 16])
def test_a_faint_pattern_is_found_in_grain(period: int) -> None:
    """A tenth as strong as the grain it lies in: what is left of it is a tenth of that."""
    pattern = 0.1 * centred_cell(period).repeat(1, 1, 24, 20)
    grain = noise(1, 3, 24 * period, 20 * period, seed=1)
    found = lattice(grain + pattern, period, 3.0) - lattice(grain, period, 3.0)
    assert float((found - pattern).square().mean()) < 0.01 * float(pattern.square().mean())
    level = lattice(grain + pattern + 7, period, 3.0) - lattice(grain + pattern, period, 3.0)
    assert float(level.abs().max()) < 1e-4  # a level is none


def test_no_more_is_taken_than_half_of_what_is_there() -> None:
    pattern = centred_cell(8).repeat(1, 1, 6, 6)
    limit = float(pattern.square().mean().sqrt()) / 2
    assert float(lattice(pattern, 8, 2.0).abs().max()) == pytest.approx(limit, rel=1e-4)


def test_of_noise_it_takes_little_and_of_slopes_next_to_nothing() -> None:
    grain = noise(1, 3, 256, 256)
    taken = float(lattice(grain, 16, 3.0).square().mean())
    assert 1 / (4 * 3.1416 * 9) < taken < 0.02  # more near the border, where the mean is over fewer
    slope = torch.linspace(0, 1, 256).expand(1, 1, 256, 256)
    assert float(lattice(slope, 16, 3.0).abs().max()) < 0.04  # within a period a slope looks like a pattern, of 1/16


def test_an_edge_leaves_no_ghost_beside_it() -> None:
    """A bright bar in one row of patches: the flat patches around it have no lattice, and none is found in them."""
    bar = torch.zeros(1, 3, 160, 160)
    bar[..., 69:73, :] = 0.5
    found = lattice(bar, 16, 3.0)
    assert float(found[..., 32:48, :].abs().max()) < 0.004  # not a grey level beside a bar of half the range


def test_images_are_seen_each_alone() -> None:
    both = noise(2, 3, 64, 64)
    torch.testing.assert_close(lattice(both, 16, 2.0)[1:], lattice(both[1:], 16, 2.0))


def test_an_image_of_one_period_has_none() -> None:
    assert not lattice(noise(1, 3, 16, 64), 16, 3.0).any()
    assert lattice(noise(1, 3, 32, 64), 16, 3.0).any()


def test_little_is_left_of_what_is_lattice_alone() -> None:
    """A pass takes half of it, the second half of the rest; without a reach nothing is taken."""
    generator = torch.Generator().manual_seed(0)
    given = torch.rand(1, 3, 64, 64, generator=generator)
    sign = torch.tensor([1.0, -1.0]).repeat(32)
    made = given + 0.1 * sign * sign[:, None]  # every place stands off by the patch's own amplitude
    left = without_lattice(made, given, 8, 2.0) - given
    torch.testing.assert_close(left.abs(), torch.full_like(left, 0.025))
    assert torch.equal(without_lattice(made, given, 8, 0.0), made)
