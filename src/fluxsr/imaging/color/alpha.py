"""Transparency: fill in the colours of transparent pixels, and composite over white."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bleed_alpha(colours: Tensor, alpha: Tensor) -> Tensor:
    """Return colours whose fully transparent pixels have the colour of the nearest visible ones.

    The colours that a file stores under transparent pixels are arbitrary, mostly black. A model or a filter that sees
    both sides of an edge would turn them into a dark fringe. Premultiplied colours are averaged over growing squares
    until every square holds a visible pixel.

    Args:
        colours: (1,C,H,W), float32, not premultiplied by alpha.
        alpha: (1,1,H,W), float32 in [0,1].

    Returns:
        (1,C,H,W); unchanged wherever alpha > 0.
    """
    if (alpha > 0).all() or not (alpha > 0).any():
        return colours
    return torch.where(alpha > 0, colours, _spread(colours * alpha, alpha))


def _spread(weighted: Tensor, weight: Tensor) -> Tensor:
    """Return weighted / weight; where the weight is 0, that of the smallest enclosing square with any weight."""
    height, width = weight.shape[-2:]
    known = weight > 0
    if known.all():
        return weighted / weight
    padded = [F.pad(planes, (0, width % 2, 0, height % 2)) for planes in (weighted, weight)]
    coarse = _spread(*(F.avg_pool2d(planes, 2) for planes in padded))
    around = F.interpolate(coarse, scale_factor=2, mode="nearest")[..., :height, :width]
    return torch.where(known, weighted / weight.clamp(min=1e-12), around)


def over_white(colours: Tensor, alpha: Tensor) -> Tensor:
    """Composite colours over white."""
    return colours * alpha + (1 - alpha)
