"""How much fine detail there is, place by place, whatever its phase; ours, not the paper's (off unless asked for).

Squared error answers a texture that the input does not show with its mean, which is blur. The energy of that texture
can still be told from what the input does show; this loss compares energies alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SIGMAS = (0.8, 1.6)  # pixels: the bands above about 1/4 and from 1/8 to 1/4 cycle per pixel
WINDOW = 8  # pixels: side of the window over which energy is averaged
FLOOR = 0.01  # of an amplitude, in a range of [-1,1]: about one grey level, below which no difference counts


def texture_loss(x: Tensor, y: Tensor, gains: Sequence[float] = (1.0, 1.0)) -> Tensor:
    """Mean absolute difference of local amplitudes, sqrt(mean energy), in two bands of the luma.

    Args:
        x, y: (B,3,H,W) in [-1,1], sides of 16 pixels or more. The gradient flows through both.
        gains: times the amplitude of y that x should have, the finest band first. Detail of a random phase costs
            fidelity with its power, the finest most and to the least avail: below 1 it is held back.

    Returns:
        Scalar, float32: 0 for equal images, and for images whose detail differs in phase alone.
    """
    bands = zip(_amplitudes(x), _amplitudes(y), gains, strict=True)
    return torch.stack([(a - FLOOR - gain * (b - FLOOR)).abs().mean() for a, b, gain in bands]).mean()


def _amplitudes(images: Tensor) -> list[Tensor]:
    """Amplitude of each band per window, (B,1,H/4,W/4) or so."""
    weights = images.new_tensor([0.299, 0.587, 0.114], dtype=torch.float32).view(1, 3, 1, 1)  # ITU-R 601
    rest, found = (images.float() * weights).sum(1, keepdim=True), []
    with torch.autocast(images.device.type, enabled=False):  # rounded to bfloat16, what is flat and bright has detail
        for sigma in SIGMAS:
            blurred = _blur(rest, sigma)
            energy = F.avg_pool2d((rest - blurred).square(), WINDOW, WINDOW // 2)
            found.append((energy + FLOOR**2).sqrt())
            rest = blurred
    return found


def _blur(planes: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B,1,H,W), the border repeated."""
    reach = round(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=planes.device, dtype=planes.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(planes, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
