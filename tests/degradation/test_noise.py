"""Noise has the requested strength, per sample; grey noise is the same in all channels."""

from __future__ import annotations

import pytest
import torch

from fluxsr.degradation.noise import add_gaussian, add_poisson


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(*levels: float, side: int = 64) -> torch.Tensor:
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous()


def test_gaussian_std_is_the_requested_one_per_sample():
    images = flat(0.5, 0.5, 0.5)
    sigma = torch.tensor([2.0, 10.0, 25.0])
    noise = add_gaussian(images, sigma, torch.tensor([False, True, False]), seeded()) - images
    torch.testing.assert_close(noise.std((1, 2, 3)) * 255, sigma, rtol=0.05, atol=0)
    assert noise.mean((1, 2, 3)).abs().max() < 0.003


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_grey_noise_is_equal_in_the_channels_and_colour_noise_is_not(kind: str):
    images = flat(0.5, 0.5)
    grey, strength = torch.tensor([True, False]), torch.tensor([2.0, 2.0])
    add = add_gaussian if kind == "gaussian" else add_poisson
    noise = add(images, strength, grey, seeded()) - images
    assert (noise[0, 0] - noise[0, 1]).abs().max() < 1e-6
    assert (noise[1, 0] - noise[1, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("scale", [0.05, 0.5, 1.0])
def test_poisson_level_is_the_requested_one(scale: float, grey: bool):
    """A ramp of all 256 values has v = 256 counts at white: std = scale * sqrt(x / 256) at the grey value x."""
    ramp = torch.arange(256.0).repeat(256, 1) / 255  # (rows, values)
    images = ramp.expand(1, 3, 256, 256).contiguous()
    noise = (add_poisson(images, torch.tensor([scale]), torch.tensor([grey]), seeded()) - images)[0]
    bands = noise[..., 32:224].reshape(3, 256, 6, 32)  # clear of black and white, where it is clamped
    found = bands.square().mean((0, 1, 3)).sqrt()
    values = ramp[0, 32:224].reshape(6, 32).mean(1)
    torch.testing.assert_close(found, scale * (values / 256).sqrt(), rtol=0.04, atol=0)
    assert bool(torch.equal(noise[0], noise[1])) == grey


def test_grey_poisson_counts_the_luma():
    """Pure blue has a luma of 0.114: little light, and the same noise in the three channels."""
    blue = torch.zeros(1, 3, 128, 128)
    blue[:, 2] = 0.5
    blue[..., :64] = 0  # a second value: v = 2 counts
    noise = add_poisson(blue, torch.tensor([0.1]), torch.tensor([True]), seeded())[0, 2, :, 64:] - 0.5
    level = round(0.5 * 0.114 * 255) / 255
    assert float(noise.var() / 0.1**2) == pytest.approx(level / 2, rel=0.1)


def test_black_stays_black_under_shot_noise():
    assert add_poisson(flat(0.0), torch.tensor([3.0]), torch.tensor([False]), seeded()).max() == 0


@pytest.mark.parametrize("add", [add_gaussian, add_poisson])
def test_result_is_clamped(add):
    images = flat(0.02, 0.98)
    out = add(images, torch.tensor([30.0, 30.0]), torch.tensor([False, True]), seeded())
    assert out.min() == 0 and out.max() == 1
