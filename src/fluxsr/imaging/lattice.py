"""Take out what repeats at the network's own pitch: the lattice of patches, latents and pixel shuffles.

A model that paints in patches errs a little the same way at the same place of every patch. The eye finds half a grey
level of it, at 2, 4, 8 or 16 pixels. Detail does not repeat so: its mean over many patches, place by place, is
nothing, so that mean is the lattice, and can be taken away.

An edge is no lattice but a hundred times as strong: the mean would leave ghosts of it, a period apart, in the sky
beside it. So no more is taken from a patch than half its own amplitude, and from a flat one nothing that shows. Where a
patch has little but lattice that leaves half of it, so all is done twice.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

PASSES = 2


def without_lattice(made: Tensor, given: Tensor, period: int, reach: float) -> Tensor:
    """What a model made of an image, both (B,C,H,W), without the lattice of what it added; reach 0 takes none."""
    for _ in range(PASSES if reach else 0):
        made = made - lattice(made - given, period, reach)
    return made


def lattice(residual: Tensor, period: int, reach: float) -> Tensor:
    """The part of a residual that repeats every ``period`` pixels around each place.

    For every place within the period, the residual's Gaussian mean over the periods around it, less the mean of all
    places; at most half the root mean square of the patch it is in. In the spectrum it is what lies at the harmonics
    of the period; of even noise it takes about 1 / (12 reach^2), 1 % for a reach of 3.

    Args:
        residual: what a model added, (B,C,H,W), in a range of [0,1], sides multiples of the period.
        period: in pixels.
        reach: standard deviation of the mean, in periods.

    Returns:
        (B,C,H,W), float32; zero for an image of fewer than two periods a side.
    """
    if min(residual.shape[-2:]) < 2 * period:
        return torch.zeros_like(residual, dtype=torch.float32)
    places = rearrange(residual.float(), "b c (i y) (j x) -> b (c y x) i j", y=period, x=period)
    places = places - places.mean(1, keepdim=True)
    around = _gaussian_mean(_gaussian_mean(places, reach).transpose(2, 3), reach).transpose(2, 3)
    around = rearrange(around, "b (c p) i j -> b c p i j", p=period * period)
    around = around - around.mean(2, keepdim=True)
    amplitude = places.square().mean(1)[:, None, None].sqrt()  # of each patch
    around = around.clamp(-amplitude / 2, amplitude / 2)
    return rearrange(around, "b c (y x) i j -> b c (i y) (j x)", y=period, x=period)


def _gaussian_mean(planes: Tensor, sigma: float) -> Tensor:
    """Gaussian mean along the last axis of (B,C,I,J), mirrored at the ends."""
    reach = min(round(3 * sigma), planes.shape[-1] - 1)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=planes.device) / sigma) ** 2)
    rows = F.pad(planes.flatten(0, 2)[:, None], (reach, reach), mode="reflect")
    return F.conv1d(rows, (weight / weight.sum()).view(1, 1, -1)).view_as(planes)
