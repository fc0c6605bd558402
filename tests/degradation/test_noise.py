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


def test_poisson_variance_follows_the_signal():
    # Two levels per image: v = 2 counts at white, so the variance of x is x / 2 before clamping.
    images = flat(0.5)
    images[..., :32] = 0.25
    scale = torch.tensor([0.05])
    noise = add_poisson(images, scale, torch.tensor([False]), seeded()) - images
    levels = (images * 255).round() / 255
    for part, level in (
        (noise[..., :32], levels[0, 0, 0, 0]),
        (noise[..., 32:], levels[0, 0, 0, -1]),
    ):
        assert float(part.var() / 0.05**2) == pytest.approx(float(level) / 2, rel=0.1)


def test_black_stays_black_under_shot_noise():
    assert add_poisson(flat(0.0), torch.tensor([3.0]), torch.tensor([False]), seeded()).max() == 0


@pytest.mark.parametrize("add", [add_gaussian, add_poisson])
def test_result_is_clamped(add):
    images = flat(0.02, 0.98)
    out = add(images, torch.tensor([30.0, 30.0]), torch.tensor([False, True]), seeded())
    assert out.min() == 0 and out.max() == 1
