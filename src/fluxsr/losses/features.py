"""Perceptual distance over any feature network: LPIPS without learned channel weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Features(Protocol):
    """Interface of a feature network."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Return feature maps (B,C,h,w), of several sizes, of images (B,3,H,W) in [-1,1]."""
        ...


class FeatureNetwork(nn.Module):
    """Small convolutional network; every level after the first halves the image.

    ``fluxsr train perceptual`` trains it to recognise how a photograph was degraded, so that its features respond to
    blur, noise, blocks and texture. It replaces the backbones of ``lpips`` where these are not available.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 96, 128), outputs: int = 0):
        super().__init__()
        pairs = zip((3, *widths[:-1]), widths, strict=True)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 1, 1), nn.GELU(), nn.Conv2d(b, b, 3, 1, 1), nn.GELU()) for a, b in pairs
        )
        self.head = nn.Linear(2 * widths[-1], outputs) if outputs else None
        self.widths = tuple(widths)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps of every level of images (B,3,H,W) in [-1,1]."""
        taps = []
        for index, level in enumerate(self.levels):
            images = level(F.avg_pool2d(images, 2) if index else images)
            taps.append(images)
        return taps

    def forward(self, images: Tensor) -> Tensor:
        """Return predictions (B,outputs) from mean and standard deviation of the last level."""
        if self.head is None:
            raise ValueError("this feature network was built without outputs")
        last = self.features(images)[-1].float()
        return self.head(torch.cat([last.mean((2, 3)), last.std((2, 3))], dim=1))


def feature_distance(network: Features, x: Tensor, y: Tensor) -> Tensor:
    """Return the distance per image (B,): the squared difference of channel-normalised features, summed over levels.

    It is computed in float32 even under autocast, because bfloat16 rounding exceeds the difference of similar images.

    Args:
        network: the feature network.
        x, y: (B,3,H,W) in [-1,1]. Gradients flow through both.
    """
    total = torch.zeros(x.shape[0], device=x.device)
    with torch.autocast(x.device.type, enabled=False):
        for a, b in zip(network.features(x.float()), network.features(y.float()), strict=True):
            total = total + (_unit(a) - _unit(b)).square().sum(1).mean((1, 2))
    return total


def _unit(features: Tensor) -> Tensor:
    """Normalise channel vectors to unit length. The epsilon is inside the root, which keeps the gradient finite."""
    return features / (features.square().sum(1, keepdim=True) + 1e-4).sqrt()
