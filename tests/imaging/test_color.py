"""Colour fixes: exact where theory says so, and local where it must be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from fluxsr.errors import InputError
from fluxsr.imaging import color


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def stablesr_low_band(image: Tensor) -> Tensor:
    """The definition, 3x3 dilated convolutions with replicated borders (StableSR, color_fix)."""
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (kernel[:, None] * kernel)[None, None]
    for level in range(5):
        step = 2**level
        padded = pad(image[None, None], (step,) * 4, mode="replicate")
        image = conv2d(padded, kernel, dilation=step)[0, 0]
    return image


@pytest.mark.parametrize("size", [(70, 45), (16, 100), (1, 3)])
def test_low_band_is_the_published_one(size: tuple[int, int]) -> None:
    image = random(*size)
    torch.testing.assert_close(color.low_band(image), stablesr_low_band(image), rtol=0, atol=1e-6)


def test_wavelet_takes_low_from_input_and_high_from_output() -> None:
    sr, lr_up = random(1, 3, 70, 45), random(1, 3, 70, 45, seed=1)
    fixed = color.fix_(sr.clone(), lr_up, "wavelet")
    for channel in range(3):
        high = sr[0, channel] - stablesr_low_band(sr[0, channel])
        expected = high + stablesr_low_band(lr_up[0, channel])
        torch.testing.assert_close(fixed[0, channel], expected, rtol=0, atol=2e-6)


def test_blocks_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    sr, lr_up = random(1, 3, 150, 97), random(1, 3, 150, 97, seed=1)
    whole = color.fix_(sr.clone(), lr_up)
    monkeypatch.setattr(color, "BLOCK", 40)
    torch.testing.assert_close(color.fix_(sr.clone(), lr_up), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_a_constant_cast_is_removed(method: str) -> None:
    lr_up = random(2, 3, 40, 33)
    cast = lr_up + torch.tensor([0.1, -0.05, 0.02])[:, None, None]
    torch.testing.assert_close(color.fix_(cast, lr_up, method), lr_up, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", color.METHODS)
def test_an_equal_image_is_left_alone(method: str) -> None:
    image = random(1, 3, 20, 16)
    torch.testing.assert_close(color.fix_(image.clone(), image, method), image)


def test_adain_matches_mean_and_deviation() -> None:
    sr, lr_up = random(1, 3, 40, 40) * 0.2, random(1, 3, 40, 40, seed=1) ** 3
    fixed = color.fix_(sr, lr_up, "adain")
    torch.testing.assert_close(fixed.mean((2, 3)), lr_up.mean((2, 3)))
    torch.testing.assert_close(fixed.std((2, 3)), lr_up.std((2, 3)))


def test_adain_of_a_flat_image_is_finite() -> None:
    fixed = color.fix_(torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.2), "adain")
    torch.testing.assert_close(fixed, torch.full((1, 3, 16, 16), 0.2))


def test_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="'lab'; choose one of wavelet, adain, none"):
        color.fix_(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), "lab")
