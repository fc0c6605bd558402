"""Texture loss: the local amount of fine detail, whatever its phase. It is ours, not the paper's; off by default.

For a texture that the input does not determine, squared error prefers the mean, which is blur. The energy of the
texture can still be predicted; this loss compares energies only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SIGMAS = (0.8, 1.6)  # pixels: the bands above about 1/4 and from 1/8 to 1/4 cycle per pixel
WINDOW = 8  # pixels: side of the window over which energy is averaged
FLOOR = 0.01  # smallest amplitude in [-1,1], about one grey level, below which differences are ignored


def texture_loss(x: Tensor, y: Tensor, gains: Sequence[float] = (1.0, 1.0)) -> Tensor:
    """Return the mean absolute difference of local amplitudes, sqrt(mean energy), in two bands of the luma.

    Args:
        x, y: (B,3,H,W) in [-1,1], sides of 16 pixels or more. The gradient flows through both.
        gains: target amplitude of x relative to y, per band, the finest first. A gain below 1 reduces detail whose
            phase is random, which costs fidelity.

    Returns:
        Scalar, float32: 0 for equal images, and for images whose detail differs in phase alone.
    """
    bands = zip(_amplitudes(x), _amplitudes(y), gains, strict=True)
    return torch.stack([(a - FLOOR - gain * (b - FLOOR)).abs().mean() for a, b, gain in bands]).mean()


def _amplitudes(images: Tensor) -> list[Tensor]:
    """Return the amplitude of each band per window, about (B,1,H/4,W/4)."""
    weights = images.new_tensor([0.299, 0.587, 0.114], dtype=torch.float32).view(1, 3, 1, 1)  # ITU-R 601
    rest, found = (images.float() * weights).sum(1, keepdim=True), []
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 rounding would add detail to flat bright areas
        for sigma in SIGMAS:
            blurred = _blur(rest, sigma)
            energy = F.avg_pool2d((rest - blurred).square(), WINDOW, WINDOW // 2)
            found.append((energy + FLOOR**2).sqrt())
            rest = blurred
    return found


def _blur(planes: Tensor, sigma: float) -> Tensor:
    """Blur planes (B,1,H,W) with a Gaussian, with repeated borders."""
    reach = round(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=planes.device, dtype=planes.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(planes, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
