"""Colour fixes: exact where theory says so, and local where it must be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from fluxsr.errors import InputError
from fluxsr.imaging.color.fix import METHODS, fix_colors_, low_band, neutral_weight


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
    torch.testing.assert_close(low_band(image), stablesr_low_band(image), rtol=0, atol=1e-6)


def test_wavelet_takes_low_from_input_and_high_from_output() -> None:
    sr, lr_up = random(1, 3, 70, 45), random(1, 3, 70, 45, seed=1)
    fixed = fix_colors_(sr.clone(), lr_up, "wavelet")
    for channel in range(3):
        high = sr[0, channel] - stablesr_low_band(sr[0, channel])
        expected = high + stablesr_low_band(lr_up[0, channel])
        torch.testing.assert_close(fixed[0, channel], expected, rtol=0, atol=2e-6)


def test_blocks_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    sr, lr_up = random(1, 3, 150, 97), random(1, 3, 150, 97, seed=1)
    whole = fix_colors_(sr.clone(), lr_up)
    monkeypatch.setattr("fluxsr.imaging.color.fix.BLOCK", 40)
    torch.testing.assert_close(fix_colors_(sr.clone(), lr_up), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_a_constant_cast_is_removed(method: str) -> None:
    lr_up = random(2, 3, 40, 33)
    cast = lr_up + torch.tensor([0.1, -0.05, 0.02])[:, None, None]
    torch.testing.assert_close(fix_colors_(cast, lr_up, method), lr_up, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_an_equal_image_is_left_alone(method: str) -> None:
    image = random(1, 3, 20, 16)
    torch.testing.assert_close(fix_colors_(image.clone(), image, method), image)


def test_adain_matches_mean_and_deviation() -> None:
    sr, lr_up = random(1, 3, 40, 40) * 0.2, random(1, 3, 40, 40, seed=1) ** 3
    fixed = fix_colors_(sr, lr_up, "adain")
    torch.testing.assert_close(fixed.mean((2, 3)), lr_up.mean((2, 3)))
    torch.testing.assert_close(fixed.std((2, 3)), lr_up.std((2, 3)))


def test_adain_of_a_flat_image_is_finite() -> None:
    fixed = fix_colors_(torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.2), "adain")
    torch.testing.assert_close(fixed, torch.full((1, 3, 16, 16), 0.2))


def test_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="'lab'; choose one of wavelet, adain, none"):
        fix_colors_(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), "lab")


def tinted(image: Tensor, seed: int = 1) -> Tensor:
    """What a model makes of an image: detail of every scale, in every channel its own."""
    return image + 0.1 * random(*image.shape, seed=seed) - 0.03


def spread(image: Tensor) -> Tensor:
    return image.amax(1) - image.amin(1)


@pytest.mark.parametrize("method", ["wavelet", "adain"])
@pytest.mark.parametrize("size", [(70, 45), (16, 16), (1, 3)])
def test_neutral_in_neutral_out(method: str, size: tuple[int, int]) -> None:
    grey = random(1, 1, *size).expand(-1, 3, -1, -1)
    rounding = (random(1, 3, *size, seed=5) * 2 - 1) * 0.5 / 255
    for lr_up in (grey, grey + rounding):
        fixed = fix_colors_(tinted(grey), lr_up, method)
        assert not spread(fixed).any(), "exactly R = G = B"
        assert fixed.std() > 0.05, "the detail is there"


def test_neutral_areas_stay_neutral_and_coloured_ones_keep_their_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    lr_up = random(1, 1, 120, 150).repeat(1, 3, 1, 1) * 0.8
    lr_up[:, 0, :, :50] += 0.2
    plain = tinted(lr_up)
    fixed = fix_colors_(plain.clone(), lr_up)
    assert not spread(fixed)[..., 50 + 2 * 8 :].any()
    difference = lr_up - plain
    low = torch.stack([low_band(channel) for channel in difference[0]])[None]
    torch.testing.assert_close(fixed[..., :50], (plain + low)[..., :50], rtol=0, atol=2e-6)
    weight = neutral_weight(lr_up[0])
    steps = weight[0].diff()
    assert (steps >= 0).all() and steps.max() < 0.1, "no edge between the two"
    monkeypatch.setattr("fluxsr.imaging.color.fix.BLOCK", 40)
    torch.testing.assert_close(fix_colors_(plain.clone(), lr_up), fixed, rtol=0, atol=1e-6)


def test_a_grey_speck_in_a_colour_is_no_neutral_area() -> None:
    lr_up = random(1, 3, 60, 60) * 0.2 + torch.tensor([0.5, 0.4, 0.3])[:, None, None]
    lr_up[..., 20:30, 20:30] = 0.4
    assert not neutral_weight(lr_up[0]).any()


def test_without_a_fix_nothing_is_changed() -> None:
    grey = random(1, 1, 20, 20).expand(-1, 3, -1, -1)
    assert torch.equal(fix_colors_(tinted(grey), grey, "none"), tinted(grey))
