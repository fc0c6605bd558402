"""Gaussian and Poisson noise, in colour or grey, with a separate strength for each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from fluxsr.degradation.draws import expand_dims

_LUMA = (0.2989, 0.5870, 0.1140)  # ITU-R 601


def add_gaussian(images: Tensor, sigma: Tensor, grey: Tensor, generator: torch.Generator) -> Tensor:
    """Add white Gaussian noise; the result is clamped to [0, 1].

    Args:
        images: (B, 3, H, W) in [0, 1].
        sigma: standard deviation in 8-bit steps (0..255), (B,).
        grey: bool (B,); true gives the three channels the same noise.
        generator: source of randomness.
    """
    draw = torch.randn(images.shape, generator=generator, device=generator.device).to(images)
    draw = torch.where(expand_dims(grey), draw[:, :1], draw)
    return (images + draw * expand_dims(sigma) / 255).clamp(0, 1)


def add_poisson(images: Tensor, scale: Tensor, grey: Tensor, generator: torch.Generator) -> Tensor:
    """Add shot noise, Poisson(x v) / v - x times `scale`; the result is clamped to [0, 1].

    As in the published code, v is the number of distinct 8-bit values in the image (in its luma for grey noise),
    rounded up to a power of two.

    Args:
        images: (B, 3, H, W) in [0, 1].
        scale: factor on the noise, (B,); 1 is the noise of v counts at white.
        grey: bool (B,); true adds the noise of the luma to all three channels.
        generator: source of randomness.
    """
    noise = torch.empty_like(images)
    colour = ~grey
    if colour.any():
        noise[colour] = _shot_noise(images[colour], generator)
    if grey.any():
        weights = torch.tensor(_LUMA).to(images).view(1, 3, 1, 1)
        luma = (images[grey] * weights).sum(1, keepdim=True)
        noise[grey] = _shot_noise(luma, generator).expand(-1, 3, -1, -1)
    return (images + noise * expand_dims(scale)).clamp(0, 1)


def _shot_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return Poisson(x v) / v - x for 8-bit images x, (B, C, H, W)."""
    levels = (images.clamp(0, 1) * 255).round()
    seen = torch.zeros(len(images), 256, device=images.device)
    seen.scatter_(1, levels.flatten(1).long(), 1.0)
    counts = expand_dims(2.0 ** seen.sum(1).log2().ceil())
    rate = levels / 255 * counts
    drawn = torch.poisson(rate.to(generator.device), generator=generator).to(images)
    return (drawn - rate) / counts
