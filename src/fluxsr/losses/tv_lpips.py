"""TV-LPIPS (FluxSR, section 3.3): a perceptual distance on images and on their total-variation maps.

What the paper leaves open, and what is done here:

- Range: images are in [-1,1], as perceptual networks expect; x_hat may overshoot, nothing is clamped.
- Channels: a map for each of R, G and B, so that edges between colours of equal luma count.
- Borders: forward differences to the right and down; beyond the last column and row there is none, and the
  difference is 0. A map has the size of its image.
- Normalisation: by constants. |dx| + |dy| is in [0,4] and becomes [-1,1]; a flat area is -1. Nothing is divided by
  a maximum or a mean, so no image of a batch depends on another.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Distance = Callable[[Tensor, Tensor], Tensor]


def tv_map(images: Tensor) -> Tensor:
    """Per-pixel total variation |dx| + |dy| of each channel.

    Args:
        images: (B,3,H,W) in [-1,1].

    Returns:
        (B,3,H,W) in [-1,1]: (|dx| + |dy|) / 2 - 1.
    """
    dx = F.pad(images.diff(dim=3).abs(), (0, 1))
    dy = F.pad(images.diff(dim=2).abs(), (0, 0, 0, 1))
    return (dx + dy) / 2 - 1


def tv_lpips(x: Tensor, y: Tensor, distance: Distance, gamma: float = 1.0) -> Tensor:
    """distance(x, y) + gamma * distance(TV(x), TV(y)), averaged over the batch.

    Decoding whole images for it takes much memory: `backbones.latents.random_crop` chooses a place, `decode_crop`
    makes x of it alone, and `crop_pixels` the y beside it.

    Args:
        x, y: (B,3,H,W) in [-1,1].
        distance: any perceptual distance of two batches in [-1,1] that gives a number per image:
            ``lpips.LPIPS()``, or `losses.features.feature_distance`.
        gamma: weight of the map's term (open in the paper).

    Returns:
        Scalar, computed in float32 under autocast too: in bfloat16 small differences are lost.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = x.float(), y.float()
        total = distance(x, y).mean()
        return total + gamma * distance(tv_map(x), tv_map(y)).mean() if gamma else total
