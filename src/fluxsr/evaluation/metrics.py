"""PSNR and SSIM, in float64, per image.

Luma is BT.601 in 16..235, as in BasicSR and pyiqa's `ycbcr` mode; SSIM rounds it to 8 bits, PSNR
does not. Images are (B, 3, H, W), RGB in [0, 1]; every function returns one value per image, (B,).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxsr.errors import InputError

_LUMA = (65.481, 128.553, 24.966)
_WINDOW = 11
_SIGMA = 1.5


def luma(images: Tensor) -> Tensor:
    """Return the BT.601 luma in 16..235, not rounded, float64 (B, H, W)."""
    red, green, blue = (images.double() * 255).unbind(1)
    return (red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]) / 255 + 16


def crop_border(images: Tensor, crop: int) -> Tensor:
    """Remove `crop` pixels on each side.

    Raises:
        InputError: nothing would be left.
    """
    height, width = images.shape[-2:]
    if crop < 0 or min(height, width) <= 2 * crop:
        raise InputError(f"cannot crop {crop} pixels from each side of a {width}x{height} image")
    return images[..., crop : height - crop, crop : width - crop]


def _psnr(mse: Tensor) -> Tensor:
    """Return the PSNR of differences in 8-bit steps, dB; 100 for equal images."""
    return torch.where(mse == 0, 100.0, 10 * torch.log10(255**2 / mse))


def psnr_y(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of the luma, dB (peak 255); 100 for equal images."""
    return _psnr((luma(sr) - luma(hr)).square().mean((1, 2)))


def psnr_rgb(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio over the three channels, dB; 100 for equal images."""
    return _psnr(((sr.double() - hr.double()) * 255).square().mean((1, 2, 3)))


def ssim_y(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the SSIM of the 8-bit luma (Wang et al., 2004): 11x11 Gaussian window, sigma 1.5, inner region only.

    The contrast term is at least 0, as in pyiqa.

    Raises:
        InputError: a side is below 11 pixels.
    """
    if min(sr.shape[-2:]) < _WINDOW:
        raise InputError(f"SSIM needs sides of {_WINDOW} pixels or more, got {tuple(sr.shape[-2:])}")
    a, b = luma(sr).round(), luma(hr).round()
    mean_a, mean_b = _window(a), _window(b)
    var_a, var_b = _window(a * a) - mean_a**2, _window(b * b) - mean_b**2
    covariance = _window(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    contrast = ((2 * covariance + c2) / (var_a + var_b + c2)).clamp(min=0)
    lightness = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (lightness * contrast).mean((1, 2))


def _window(planes: Tensor) -> Tensor:
    """Return the Gaussian-weighted local mean, (B, H, W) -> (B, H - 10, W - 10)."""
    offset = torch.arange(_WINDOW, dtype=planes.dtype, device=planes.device) - _WINDOW // 2
    weight = torch.exp(-0.5 * (offset / _SIGMA) ** 2)
    weight = weight / weight.sum()
    rows = F.conv2d(planes[:, None], weight.view(1, 1, -1, 1))
    return F.conv2d(rows, weight.view(1, 1, 1, -1))[:, 0]
