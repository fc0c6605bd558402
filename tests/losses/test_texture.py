"""The texture loss compares how much fine detail there is, not where its crests lie."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fluxsr.losses.texture import FLOOR, texture_loss


def wave(period: float, amplitude: float = 0.5, phase: float = 0.0) -> Tensor:
    """Vertical stripes (1,3,64,64), grey."""
    row = amplitude * torch.sin(2 * math.pi * torch.arange(64) / period + phase)
    return row.expand(1, 3, 64, 64).clone()


def noise(seed: int, count: int = 1) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_equal_images_have_none() -> None:
    assert float(texture_loss(noise(0), noise(0))) == 0


def test_phase_does_not_count_and_amplitude_does() -> None:
    """Stripes of 4 pixels: windows of 8 hold whole periods, so energy is the same wherever the crests lie."""
    moved = float(texture_loss(wave(4), wave(4, phase=1.0)))
    halved = float(texture_loss(wave(4), wave(4, amplitude=0.25)))
    assert moved < 0.05 * halved


def test_amplitudes_have_their_closed_form() -> None:
    """Beside the border a band holds the wave times its gain; a flat image holds the floor."""
    period, amplitude, sigma = 4, 0.5, 0.8
    gain = 1 - math.exp(-0.5 * (2 * math.pi * sigma / period) ** 2)
    rest = 1 - gain
    second = rest * (1 - math.exp(-0.5 * (2 * math.pi * 1.6 / period) ** 2))
    expected = sum(math.sqrt((amplitude * g) ** 2 / 2 + FLOOR**2) - FLOOR for g in (gain, second)) / 2
    assert float(texture_loss(wave(period, amplitude), torch.zeros(1, 3, 64, 64))) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("level", [0.9, -0.7])
def test_autocast_gives_a_flat_image_no_detail(level: float) -> None:
    flat, faint = torch.full((1, 3, 64, 64), level), torch.full((1, 3, 64, 64), level) + 0.01 * noise(7)
    exact = float(texture_loss(flat, faint))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(texture_loss(flat, faint)) == pytest.approx(exact, rel=1e-5)


def test_gain_asks_for_more_where_there_is_detail_and_for_none_where_there_is_none() -> None:
    strong, weak, flat = wave(4, 0.6), wave(4, 0.3), torch.zeros(1, 3, 64, 64)
    assert float(texture_loss(strong, weak, gains=(2.0, 2.0))) <= FLOOR + 1e-6 < float(texture_loss(strong, weak))
    assert float(texture_loss(flat, flat, gains=(2.0, 2.0))) == 0


def test_each_band_has_its_own_gain() -> None:
    """Waves of 3 px stand in the finest band, waves of 12 px in the next."""
    for period, gains, other in ((3, (0.5, 1.0), (1.0, 0.5)), (12, (1.0, 0.5), (0.5, 1.0))):
        halved, whole = wave(period, 0.3), wave(period, 0.6)
        assert float(texture_loss(halved, whole, gains)) < 0.5 * float(texture_loss(halved, whole, other))


def test_what_an_lr_image_holds_does_not_count() -> None:
    """A slope of brightness is no detail; fine stripes of the same height are."""
    slope = torch.linspace(-0.5, 0.5, 64).expand(1, 3, 64, 64)
    flat = torch.zeros(1, 3, 64, 64)
    assert float(texture_loss(slope, flat)) < 0.02 * float(texture_loss(wave(4), flat))


def test_blur_is_worse_than_other_detail_of_the_same_strength() -> None:
    """The reverse of squared error: another draw of the same noise is nearer than its mean."""
    real, other, mean = noise(1), noise(2), torch.zeros(1, 3, 64, 64)
    assert float(texture_loss(other, real)) < 0.3 * float(texture_loss(mean, real))
    assert float((other - real).square().mean()) > float((mean - real).square().mean())


def test_images_are_seen_each_alone() -> None:
    x, y = noise(3, 2), noise(4, 2)
    each = [texture_loss(x[k : k + 1], y[k : k + 1]) for k in range(2)]
    torch.testing.assert_close(texture_loss(x, y), torch.stack(each).mean())


def test_gradient_is_finite_on_flat_images() -> None:
    x = torch.zeros(1, 3, 32, 32, requires_grad=True)
    texture_loss(x, noise(5)[..., :32, :32]).backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())
