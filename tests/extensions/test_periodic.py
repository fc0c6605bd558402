"""The periodic loss sees what repeats, at its pitch, and nothing else more than squared error does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fluxsr.extensions.periodic import periodic_loss


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_of_white_noise_it_is_the_variance() -> None:
    assert float(periodic_loss(3 * noise(8, 3, 128, 96), 8)) == pytest.approx(9 * 63 / 64, rel=0.1)


def test_of_a_pattern_it_is_its_energy_times_the_repetitions() -> None:
    tile = noise(1, 2, 4, 4)
    tile = tile - tile.mean((2, 3), keepdim=True)
    pattern = tile.repeat(1, 1, 5, 7)
    torch.testing.assert_close(periodic_loss(pattern, 4), 35 * tile.square().mean())
    torch.testing.assert_close(periodic_loss(pattern + 0.3, 4), periodic_loss(pattern, 4))  # a shift is no pattern


def test_what_repeats_at_another_pitch_is_not_seen() -> None:
    stripes = torch.tensor([1.0, -1.0]).repeat(1, 1, 12, 6)  # period 2 along a row
    three = torch.tensor([1.0, 0.0, -1.0]).repeat(1, 1, 12, 4)  # period 3
    assert float(periodic_loss(three, 2)) == pytest.approx(0, abs=1e-6)
    assert float(periodic_loss(stripes, 4)) == pytest.approx(1 * 9)  # a multiple of its period shows it too


def test_gradient_is_the_pattern() -> None:
    residual = noise(1, 1, 16, 16).requires_grad_()
    periodic_loss(residual, 8).backward()
    assert residual.grad is not None
    quarters = residual.grad.unfold(2, 8, 8).unfold(3, 8, 8)
    assert float(quarters.var(dim=(2, 3)).max()) < 1e-10 and float(residual.grad.abs().max()) > 0


def test_sizes_that_hold_no_period_are_refused() -> None:
    with pytest.raises(ValueError, match="period is 1"):
        periodic_loss(noise(1, 1, 8, 8), 1)
    with pytest.raises(ValueError, match="does not hold one period of 16"):
        periodic_loss(noise(1, 1, 8, 32), 16)
