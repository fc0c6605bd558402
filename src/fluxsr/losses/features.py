"""A perceptual distance over any feature network, as LPIPS without learned channel weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Features(Protocol):
    """What a perceptual distance needs of a network."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Taps (B,C,h,w), each of its own size, for images (B,3,H,W) in [-1,1]."""
        ...


class FeatureNetwork(nn.Module):
    """A small convolutional network; every level halves the image and is a tap of the distance.

    Trained by ``fluxsr train perceptual`` to recognise how a photograph was degraded, so that its features
    see blur, noise, blocks and texture. Used where the backbones of ``lpips`` cannot be had.
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
        """Taps of every level for images (B,3,H,W) in [-1,1]."""
        taps = []
        for index, level in enumerate(self.levels):
            images = level(F.avg_pool2d(images, 2) if index else images)
            taps.append(images)
        return taps

    def forward(self, images: Tensor) -> Tensor:
        """Predictions (B,outputs) from mean and deviation of the deepest tap."""
        if self.head is None:
            raise ValueError("this feature network was built without outputs")
        last = self.features(images)[-1].float()
        return self.head(torch.cat([last.mean((2, 3)), last.std((2, 3))], dim=1))


def feature_distance(network: Features, x: Tensor, y: Tensor) -> Tensor:
    """Per-image distance (B,): at every tap the squared difference of channel-normalised features, summed.

    It is computed in float32 under autocast too: in bfloat16 the features of two similar images differ by rounding.

    Args:
        x, y: (B,3,H,W) in [-1,1]. The gradient flows through both; wrap y in no_grad where it is the target.
    """
    total = torch.zeros(x.shape[0], device=x.device)
    with torch.autocast(x.device.type, enabled=False):
        for a, b in zip(network.features(x.float()), network.features(y.float()), strict=True):
            total = total + (_unit(a) - _unit(b)).square().sum(1).mean((1, 2))
    return total


def _unit(features: Tensor) -> Tensor:
    """Channel vectors of unit length; the guard sits inside the root, where the gradient needs it."""
    return features / (features.square().sum(1, keepdim=True) + 1e-4).sqrt()
