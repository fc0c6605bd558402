"""Hold back the finest detail that a model adds.

Where a photograph's detail is invented, its phase is a guess, and a guess costs fidelity with its power: so much of it
that squared error, asked alone, would have none. The finest octave costs most and is seen least.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SIGMA = 0.8  # pixels; the band above about 1/4 cycle per pixel, as in losses/texture.py
_REACH = 3


def held_back(made: Tensor, given: Tensor, fine: float) -> Tensor:
    """What a model made of an image, both (B,C,H,W), with only a share of the finest detail that it added.

    The finest detail is what a Gaussian of 0.8 pixels takes out of ``made - given``: half the amplitude at 0.23 cycles
    per pixel, 91 % at 1/2.

    Args:
        made, given: in a range of [0,1], sides of 4 pixels or more.
        fine: share that stays; 1 changes nothing, 0 leaves the coarser detail alone.
    """
    if fine == 1:
        return made
    added = made - given
    return made - (1 - fine) * (added - _blurred(added))


def _blurred(images: Tensor) -> Tensor:
    """Gaussian blur along both axes, mirrored at the border, so that a level stays as it is."""
    offsets = torch.arange(-_REACH, _REACH + 1, device=images.device, dtype=images.dtype)
    weight = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    weight = (weight / weight.sum()).view(1, 1, 1, -1)
    planes = F.pad(images.flatten(0, 1)[:, None], (_REACH,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(planes, weight), weight.transpose(2, 3)).view_as(images)
