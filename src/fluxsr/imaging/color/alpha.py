"""Transparency: colours for pixels that have none, so that no edge mixes with them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bleed_alpha(colours: Tensor, alpha: Tensor) -> Tensor:
    """Colours whose fully transparent pixels are taken from the nearest that are not.

    What a file holds under transparent pixels is arbitrary, mostly black. A model or a filter that sees both sides of
    an edge would draw it into the picture as a dark fringe. Means of colours that were multiplied by alpha are taken
    over ever larger squares until each has one.

    Args:
        colours: (1,C,H,W), float32, alpha not multiplied in.
        alpha: (1,1,H,W), float32 in [0,1].

    Returns:
        (1,C,H,W); the same wherever alpha > 0.
    """
    if (alpha > 0).all() or not (alpha > 0).any():
        return colours
    return torch.where(alpha > 0, colours, _spread(colours * alpha, alpha))


def _spread(weighted: Tensor, weight: Tensor) -> Tensor:
    """weighted / weight, where weight is 0 that of the smallest square around with any."""
    height, width = weight.shape[-2:]
    known = weight > 0
    if known.all():
        return weighted / weight
    padded = [F.pad(planes, (0, width % 2, 0, height % 2)) for planes in (weighted, weight)]
    coarse = _spread(*(F.avg_pool2d(planes, 2) for planes in padded))
    around = F.interpolate(coarse, scale_factor=2, mode="nearest")[..., :height, :width]
    return torch.where(known, weighted / weight.clamp(min=1e-12), around)


def over_white(colours: Tensor, alpha: Tensor) -> Tensor:
    """Colours laid over white, where a format or a caller has no transparency."""
    return colours * alpha + (1 - alpha)
