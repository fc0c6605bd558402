"""Post-processing: the lattice is found whatever it looks like, and only added detail is attenuated."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.extensions.postprocess import FINE_SIGMA, attenuate_detail, lattice, postprocess, remove_lattice

OUTPUT, INPUT = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_default_config_changes_nothing() -> None:
    assert torch.equal(postprocess(OUTPUT, INPUT, 16, **AdapterConfig().postprocess), OUTPUT)


def test_the_lattice_is_removed_first() -> None:
    config = AdapterConfig(lattice_reach=2.0, fine_strength=0.3, flat_floor=0.1)
    expected = attenuate_detail(remove_lattice(OUTPUT, INPUT, 16, 2.0), INPUT, 0.3, 0.1)
    assert torch.equal(postprocess(OUTPUT, INPUT, 16, **config.postprocess), expected)


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


def test_at_most_half_of_the_amplitude_is_removed() -> None:
    pattern = centred_cell(8).repeat(1, 1, 6, 6)
    limit = float(pattern.square().mean().sqrt()) / 2
    assert float(lattice(pattern, 8, 2.0).abs().max()) == pytest.approx(limit, rel=1e-4)


def test_noise_loses_little_and_slopes_next_to_nothing() -> None:
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


def test_images_of_a_batch_do_not_mix() -> None:
    both = noise(2, 3, 64, 64)
    torch.testing.assert_close(lattice(both, 16, 2.0)[1:], lattice(both[1:], 16, 2.0))


def test_an_image_of_one_period_has_none() -> None:
    assert not lattice(noise(1, 3, 16, 64), 16, 3.0).any()
    assert lattice(noise(1, 3, 32, 64), 16, 3.0).any()


def test_little_is_left_of_what_is_lattice_alone() -> None:
    """A pass takes half of it, the second half of the rest; without a reach nothing is taken."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 64, 64, generator=generator)
    sign = torch.tensor([1.0, -1.0]).repeat(32)
    output = image + 0.1 * sign * sign[:, None]  # every place stands off by the patch's own amplitude
    left = remove_lattice(output, image, 8, 2.0) - image
    torch.testing.assert_close(left.abs(), torch.full_like(left, 0.025))
    assert torch.equal(remove_lattice(output, image, 8, 0.0), output)


def wave(frequency: float, side: int = 64) -> Tensor:
    """A horizontal wave of so many cycles per pixel, (1,3,side,side)."""
    return torch.cos(2 * math.pi * frequency * torch.arange(side)).expand(1, 3, side, side)


def inner(images: Tensor) -> Tensor:
    return images[..., 16:-16, 16:-16]


@pytest.mark.parametrize("frequency", [1 / 16, 1 / 8, 1 / 4, 1 / 2])
@pytest.mark.parametrize("fine", [0.0, 0.4])
def test_a_wave_is_scaled_by_the_gaussians_closed_form(frequency: float, fine: float) -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    left_by = [
        math.exp(-2 * (math.pi * FINE_SIGMA * f) ** 2) for f in (frequency, 1 - frequency)
    ]  # a sampled Gaussian's
    taken = 1 - sum(left_by)
    left = attenuate_detail(image + wave(frequency), image, fine) - image
    expected = (1 - (1 - fine) * taken) * wave(frequency)
    assert torch.allclose(inner(left), inner(expected), atol=0.005)  # cut at 3 pixels


def test_full_strength_changes_nothing() -> None:
    output = torch.rand(2, 3, 16, 20)
    assert torch.equal(attenuate_detail(output, torch.zeros_like(output), 1.0), output)


def test_the_input_is_not_changed() -> None:
    image = torch.rand(2, 3, 16, 20)
    assert torch.equal(attenuate_detail(image, image, 0.0), image)


def test_a_constant_stays_constant_up_to_the_border() -> None:
    image = torch.rand(1, 3, 16, 16)
    assert torch.allclose(attenuate_detail(image + 0.25, image, 0.0), image + 0.25, atol=1e-6)


def test_flat_areas_stay_and_busy_ones_get_everything() -> None:
    """The share is e^2 / (e^2 + flat^2), e the root mean square of the input's own detail."""
    added = 0.02 * wave(1 / 4, 96)
    share = {}
    for level in (0.0, 0.002, 0.1):
        image = 0.5 + level * 2**0.5 * wave(1 / 3, 96)  # all of it is above OWN_SIGMA
        left = inner(attenuate_detail(image + added, image, 1.0, 0.002) - image)
        share[level] = float((left * inner(added)).sum() / inner(added).square().sum())
    assert share[0.0] == pytest.approx(0, abs=1e-4)
    assert share[0.002] == pytest.approx(0.5, abs=0.01)
    assert share[0.1] == pytest.approx(1, abs=1e-3)
