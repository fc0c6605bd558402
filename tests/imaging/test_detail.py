"""The finest detail that was added is scaled, everything else stays."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fluxsr.imaging.detail import FINE_SIGMA, held_back


def wave(frequency: float, side: int = 64) -> Tensor:
    """A horizontal wave of so many cycles per pixel, (1,3,side,side)."""
    return torch.cos(2 * math.pi * frequency * torch.arange(side)).expand(1, 3, side, side)


def inner(images: Tensor) -> Tensor:
    return images[..., 16:-16, 16:-16]


@pytest.mark.parametrize("frequency", [1 / 16, 1 / 8, 1 / 4, 1 / 2])
@pytest.mark.parametrize("fine", [0.0, 0.4])
def test_a_wave_is_scaled_by_the_gaussians_closed_form(frequency: float, fine: float) -> None:
    given = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    left_by = [
        math.exp(-2 * (math.pi * FINE_SIGMA * f) ** 2) for f in (frequency, 1 - frequency)
    ]  # a sampled Gaussian's
    taken = 1 - sum(left_by)
    left = held_back(given + wave(frequency), given, fine) - given
    expected = (1 - (1 - fine) * taken) * wave(frequency)
    assert torch.allclose(inner(left), inner(expected), atol=0.005)  # cut at 3 pixels


def test_all_of_it_changes_nothing() -> None:
    made = torch.rand(2, 3, 16, 20)
    assert torch.equal(held_back(made, torch.zeros_like(made), 1.0), made)


def test_what_was_given_is_not_touched() -> None:
    given = torch.rand(2, 3, 16, 20)
    assert torch.equal(held_back(given, given, 0.0), given)


def test_a_level_stays_up_to_the_border() -> None:
    given = torch.rand(1, 3, 16, 16)
    assert torch.allclose(held_back(given + 0.25, given, 0.0), given + 0.25, atol=1e-6)


def test_flat_places_stay_as_they_were_and_busy_ones_get_all() -> None:
    """The share is e^2 / (e^2 + flat^2), e the root mean square of the input's own detail."""
    added = 0.02 * wave(1 / 4, 96)
    share = {}
    for level in (0.0, 0.002, 0.1):
        given = 0.5 + level * 2**0.5 * wave(1 / 3, 96)  # all of it is above OWN_SIGMA
        left = inner(held_back(given + added, given, 1.0, 0.002) - given)
        share[level] = float((left * inner(added)).sum() / inner(added).square().sum())
    assert share[0.0] == pytest.approx(0, abs=1e-4)
    assert share[0.002] == pytest.approx(0.5, abs=0.01)
    assert share[0.1] == pytest.approx(1, abs=1e-3)
