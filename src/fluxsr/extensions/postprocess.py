"""Post-processing of model outputs: remove the patch lattice, attenuate detail that the model added.

**Lattice.** A model that paints in patches makes the same small error at the same position of every patch. The eye sees
half a grey level of it, at periods of 2, 4, 8 or 16 pixels. Image detail does not repeat this way: its mean over many
patches, taken position by position, is zero. That mean is therefore the lattice, and it can be subtracted.
An edge is a hundred times as strong, and its mean would leave ghosts one period apart in a sky beside it. So at most
half of a patch's own amplitude is removed from it, and the removal is done twice.

**Detail.** The phase of invented detail is a guess, and a wrong guess costs fidelity in proportion to its power. The
finest octave costs most and is seen least. Where the input is flat up to its own rounding, nothing tells what should
be there, and what a model adds is its own texture.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

PASSES = 2
FINE_SIGMA = 0.8  # pixels; the band above about 1/4 cycle per pixel
OWN_SIGMA = 2.0  # pixels; the input's own detail lies above it, as far as a quarter of the size holds any
WINDOW_SIGMA = 3.0  # pixels over which the energy of that detail is averaged


def postprocess(
    output: Tensor, input: Tensor, period: int, *, lattice_reach: float, fine_strength: float, flat_floor: float
) -> Tensor:
    """Remove the lattice from a model's output and attenuate the detail that it added.

    Args:
        output, input: result of the model and the image it was given, both (B,C,H,W) in a range of [0,1].
        period: period of the lattice, in pixels.
        lattice_reach: see ``remove_lattice``.
        fine_strength, flat_floor: see ``attenuate_detail``.
    """
    return attenuate_detail(remove_lattice(output, input, period, lattice_reach), input, fine_strength, flat_floor)


def remove_lattice(output: Tensor, input: Tensor, period: int, reach: float) -> Tensor:
    """Return a model's output (B,C,H,W) without the lattice in what it added to its input; no-op when reach is 0."""
    for _ in range(PASSES if reach else 0):
        output = output - lattice(output - input, period, reach)
    return output


def lattice(residual: Tensor, period: int, reach: float) -> Tensor:
    """Return the part of a residual that repeats locally with a given period.

    For every position within the period this is the Gaussian mean of the residual over the neighbouring periods, minus
    the mean of all positions. It is limited to half the root mean square of its patch. In the spectrum it is what lies
    at the harmonics of the period. It takes about 1 / (12 reach^2) of white noise: 1 % for a reach of 3.

    Args:
        residual: what a model added, (B,C,H,W), in a range of [0,1], sides multiples of the period.
        period: in pixels.
        reach: standard deviation of the Gaussian mean, in periods.

    Returns:
        (B,C,H,W), float32; zero for an image of fewer than two periods a side.
    """
    if min(residual.shape[-2:]) < 2 * period:
        return torch.zeros_like(residual, dtype=torch.float32)
    positions = rearrange(residual.float(), "b c (i y) (j x) -> b (c y x) i j", y=period, x=period)
    positions = positions - positions.mean(1, keepdim=True)
    mean = _gaussian_mean(_gaussian_mean(positions, reach).transpose(2, 3), reach).transpose(2, 3)
    mean = rearrange(mean, "b (c p) i j -> b c p i j", p=period * period)
    mean = mean - mean.mean(2, keepdim=True)
    amplitude = positions.square().mean(1)[:, None, None].sqrt()  # of each patch
    mean = mean.clamp(-amplitude / 2, amplitude / 2)
    return rearrange(mean, "b c (y x) i j -> b c (i y) (j x)", y=period, x=period)


def attenuate_detail(output: Tensor, input: Tensor, fine: float, flat: float = 0.0) -> Tensor:
    """Return a model's output with only part of the detail that it added to its input.

    Args:
        output, input: (B,C,H,W), in a range of [0,1], sides of 10 pixels or more.
        fine: fraction of the finest added detail that is kept. The finest detail is what a Gaussian of 0.8 pixels
            removes from ``output - input``: half the amplitude at 0.23 cycles per pixel, 91 % at 1/2.
            1 keeps all of it, 0 keeps only the coarser detail.
        flat: amplitude of the input's own detail at which half of the added detail is kept. The kept fraction is
            e^2 / (e^2 + flat^2), where e is the local root mean square. 0 keeps everything. Rounding to 8 bits has an
            amplitude of 0.0011.
    """
    if fine == 1 and not flat:
        return output
    added = output - input
    if fine != 1:
        added = added - (1 - fine) * (added - _blurred(added, FINE_SIGMA))
    if flat:
        energy = (input - _blurred(input, OWN_SIGMA)).square().mean(1, keepdim=True)
        energy = _blurred(energy, WINDOW_SIGMA)  # (B,1,H,W)
        added = added * (energy / (energy + flat**2))
    return input + added


def _gaussian_mean(planes: Tensor, sigma: float) -> Tensor:
    """Return the Gaussian mean along the last axis of (B,C,I,J), mirrored at the ends."""
    reach = min(round(3 * sigma), planes.shape[-1] - 1)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=planes.device) / sigma) ** 2)
    rows = F.pad(planes.flatten(0, 2)[:, None], (reach, reach), mode="reflect")
    return F.conv1d(rows, (weight / weight.sum()).view(1, 1, -1)).view_as(planes)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Return a Gaussian blur along both axes, mirrored at the border, so that a constant stays constant.

    The taps are added one by one: a convolution with one channel takes up to ten times as long on a CPU.
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
