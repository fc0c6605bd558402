"""TV-LPIPS (FluxSR, section 3.3): a perceptual distance on images and on their total-variation maps."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

Distance = Callable[[Tensor, Tensor], Tensor]


def tv_map(images: Tensor) -> Tensor:
    """Per-pixel total variation |dx| + |dy| of each channel.

    Args:
        images: (B,3,H,W) in [-1,1].

    Returns:
        (B,3,H,W) in [-1,1]: forward differences, zero beyond the last row and column, |dx| + |dy| in [0,4]
        halved and shifted down by 1 to the range perceptual networks expect. Range, channels and borders are
        open in the paper; nothing here depends on the other images of the batch.
    """
    dx = F.pad(images.diff(dim=3).abs(), (0, 1))
    dy = F.pad(images.diff(dim=2).abs(), (0, 0, 0, 1))
    return (dx + dy) / 2 - 1


def tv_lpips(x: Tensor, y: Tensor, distance: Distance, gamma: float = 1.0) -> Tensor:
    """distance(x, y) + gamma * distance(TV(x), TV(y)), averaged over the batch.

    Args:
        x, y: (B,3,H,W) in [-1,1].
        distance: any perceptual distance of two batches in [-1,1]: ``lpips.LPIPS()``, or ours.
        gamma: weight of the map's term (open in the paper).
    """
    total = distance(x, y).mean()
    return total + gamma * distance(tv_map(x), tv_map(y)).mean() if gamma else total
