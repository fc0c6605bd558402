"""Hold back detail that a model adds where it costs most and is worth least: the finest, and in flat places.

Where a photograph's detail is invented, its phase is a guess, and a guess costs fidelity with its power: so much of it
that squared error, asked alone, would have none. The finest octave costs most and is seen least. And where the input
is flat to within its own rounding, nothing tells what should be there: what a model adds is its own weave.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FINE_SIGMA = 0.8  # pixels; the band above about 1/4 cycle per pixel, as in losses/texture.py
OWN_SIGMA = 2.0  # pixels; the input's own detail, as far as a quarter of the size holds any, is above it
WINDOW_SIGMA = 3.0  # pixels over which its energy is averaged


def held_back(made: Tensor, given: Tensor, fine: float, flat: float = 0.0) -> Tensor:
    """What a model made of an image, both (B,C,H,W), with only a share of the detail that it added.

    Args:
        made, given: in a range of [0,1], sides of 10 pixels or more.
        fine: share that stays of the finest detail, what a Gaussian of 0.8 pixels takes out of ``made - given``:
            half the amplitude at 0.23 cycles per pixel, 91 % at 1/2. 1 leaves all, 0 the coarser detail alone.
        flat: amplitude of the input's own detail at which half of what was added stays: e^2 / (e^2 + flat^2) where its
            local root mean square is e. 0 leaves all; half a grey level is 0.002.
    """
    if fine == 1 and not flat:
        return made
    added = made - given
    if fine != 1:
        added = added - (1 - fine) * (added - _blurred(added, FINE_SIGMA))
    if flat:
        energy = (given - _blurred(given, OWN_SIGMA)).square().mean(1, keepdim=True)
        energy = _blurred(energy, WINDOW_SIGMA)  # (B,1,H,W)
        added = added * (energy / (energy + flat**2))
    return given + added


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur along both axes, mirrored at the border, so that a level stays as it is.

    Tap by tap: a convolution with one channel takes up to ten times as long on a CPU.
    """
    reach = round(3 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(reach + 1) / sigma) ** 2)
    weights = weights / (2 * weights.sum() - 1)
    for axis, edges in ((-1, (reach, reach, 0, 0)), (-2, (0, 0, reach, reach))):
        side, padded = images.shape[axis], F.pad(images, edges, mode="reflect")
        images = padded.narrow(axis, reach, side) * float(weights[0])
        for k in range(1, reach + 1):
            pair = padded.narrow(axis, reach - k, side) + padded.narrow(axis, reach + k, side)
            images.add_(pair, alpha=float(weights[k]))
    return images
