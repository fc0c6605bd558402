"""Spectra: recorded values, and patterns found at the period they have."""

from __future__ import annotations

import pytest
import torch

from fluxsr.errors import InputError
from fluxsr.evaluation.metrics import crop_border
from fluxsr.evaluation.spectra import (
    band_db,
    grid_db,
    grid_excess,
    peak16,
    power_spectrum,
    radial_power,
)


@pytest.mark.parametrize(
    ("arguments", "bands", "grids", "peak"),
    [
        ((0, 176, 192), (-2.452904, -3.327845), (15.984814, 9.194317, 1.474896), 11.299108),
        ((1, 181, 203), (-2.832908, -3.389383), (12.819999, 7.970241, 1.172125), 12.905133),
    ],
)
def test_recorded_values(pair, arguments, bands, grids, peak):
    sr, hr = pair(*arguments)
    found = band_db(crop_border(sr, 4), crop_border(hr, 4))
    assert [float(value) for value in found] == pytest.approx(bands, abs=1e-5)
    excess = grid_excess(sr)
    assert [float(value) for value in grid_db(excess).values()] == pytest.approx(grids, abs=1e-5)
    assert peak16(excess) == pytest.approx(peak, abs=1e-5)


def noise(count: int = 4, side: int = 128) -> torch.Tensor:
    draw = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(0))
    return (0.5 + 0.05 * draw).expand(-1, 3, -1, -1)


@pytest.mark.parametrize("period", [4, 8, 16])
def test_a_pattern_shows_at_its_own_period(period: int):
    impulses = torch.zeros(128, 128)
    impulses[::period, ::period] = 0.2
    clean, marked = grid_db(grid_excess(noise())), grid_db(grid_excess(noise() + impulses))
    assert all(abs(float(value.mean())) < 1.5 for value in clean.values())
    assert float(marked[f"grid{period}"].mean()) > 3
    if period < 16:
        assert abs(float(marked["grid16"].mean())) < 1.5


def test_a_faint_pattern_common_to_all_images_shows_in_the_peak():
    columns = 0.01 * torch.cos(torch.arange(128) * 2 * torch.pi / 16)
    assert peak16(grid_excess(noise(24) + columns)) > peak16(grid_excess(noise(24))) + 3


def test_white_noise_has_a_flat_spectrum_and_equal_images_no_band_error():
    image = noise(8)
    level = radial_power(power_spectrum(image[:, 0] * 255)).mean(0)
    assert float(level[8:].std() / level[8:].mean()) < 0.15
    mid, high = band_db(image, image)
    assert mid.abs().max() == 0 and high.abs().max() == 0


def test_a_blur_loses_high_frequencies():
    image = noise()
    blurred = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    mid, high = band_db(blurred, image)
    assert float(high.mean()) < -5


@pytest.mark.parametrize("measure", [grid_excess, lambda image: band_db(image, image)])
def test_small_images_are_refused(measure):
    with pytest.raises(InputError, match="128"):
        measure(torch.zeros(1, 3, 127, 200))
