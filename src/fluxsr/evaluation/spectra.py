"""Spectra of images: lost or invented detail, and patterns at the network's grid."""

from __future__ import annotations

import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.evaluation.metrics import luma

SMALLEST = 128  # smallest side in pixels; below, rings are empty and neighbours reach the next harmonic
_BINS = SMALLEST // 2
_NEAR = (3, 4, 5, 6)
# The power mean of `grid_db` for white noise, whose excess follows an exponential distribution.
_NOISE_DB = 2.5


def power_spectrum(planes: Tensor) -> Tensor:
    """Return the power of Hann-windowed planes (B, H, W) of luma in 0..255, without their mean.

    The noise of 8-bit rounding is added as a lower bound.
    """
    planes = planes.double()
    rows, columns = (
        torch.hann_window(side, periodic=False, dtype=planes.dtype, device=planes.device) for side in planes.shape[-2:]
    )
    window = torch.outer(rows, columns)
    centred = planes - planes.mean((-2, -1), keepdim=True)
    return torch.fft.fft2(centred * window).abs().square() + window.square().sum() / 12


def radial_power(power: Tensor) -> Tensor:
    """Return the mean power in 64 rings of equal width from 0 to 1/2 cycle per pixel; (B, H, W) -> (B, 64)."""
    height, width = power.shape[-2:]
    rows = torch.fft.fftfreq(height, dtype=torch.float64, device=power.device)
    columns = torch.fft.fftfreq(width, dtype=torch.float64, device=power.device)
    ring = (torch.hypot(rows[:, None], columns) * 2 * _BINS).long().flatten()  # (H W,)
    inside = ring < _BINS
    ring, flat = ring[inside], power.flatten(-2)[:, inside]
    total = power.new_zeros(len(power), _BINS).index_add_(1, ring, flat)
    return total / torch.bincount(ring, minlength=_BINS).clamp(min=1)


def band_db(sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
    """Return the luma power of `sr` over that of `hr` in two bands, dB, as (mid, high), each (B,).

    mid is 1/8..1/4 and high 1/4..1/2 cycles per pixel, which an LR image of a quarter of the size cannot hold. Below 0
    dB, `sr` is blurrier than `hr`; above 0, it has more fine detail.

    Args:
        sr, hr: (B, 3, H, W), RGB in [0, 1], sides of 128 pixels or more.

    Raises:
        InputError: a side is below 128 pixels.
    """
    if min(sr.shape[-2:]) < SMALLEST:
        raise InputError(f"band energies need sides of {SMALLEST} pixels or more, got {tuple(sr.shape[-2:])}")
    ratio = radial_power(power_spectrum(luma(sr))) / radial_power(power_spectrum(luma(hr)))
    decibel = 10 * ratio.log10()
    return decibel[:, _BINS // 4 : _BINS // 2].mean(1), decibel[:, _BINS // 2 :].mean(1)


def grid_excess(images: Tensor) -> Tensor:
    """Return the power at (u/16, v/16) cycles per pixel over that of nearby frequencies, dB, (B, 16, 9).

    [:, 0, 0] is NaN. On an axis (u or v = 0), where photographs have a bright line, only neighbours along that axis are
    compared.

    Args:
        images: (B, 3, H, W), RGB in [0, 1]; sides are cropped to multiples of 16.

    Raises:
        InputError: a side is below 128 pixels.
    """
    height, width = (side // 16 * 16 for side in images.shape[-2:])
    if min(height, width) < SMALLEST:
        raise InputError(f"the grid measure needs sides of {SMALLEST} pixels or more, got {tuple(images.shape[-2:])}")
    level = 10 * power_spectrum(luma(images[..., :height, :width])).log10()
    at_rows = torch.arange(16, device=images.device) * (height // 16)
    at_columns = torch.arange(9, device=images.device) * (width // 16)

    def near(offset_rows: int, offset_columns: int) -> Tensor:
        rows, columns = (at_rows + offset_rows) % height, (at_columns + offset_columns) % width
        return level[:, rows[:, None], columns]  # (B, 16, 9)

    offsets = [sign * k for k in _NEAR for sign in (-1, 1)]
    along_rows = torch.stack([near(k, 0) for k in offsets]).mean(0)
    along_columns = torch.stack([near(0, k) for k in offsets]).mean(0)
    around = (along_rows + along_columns) / 2
    around[:, 0] = along_columns[:, 0]
    around[:, :, 0] = along_rows[:, :, 0]
    excess = near(0, 0) - around
    excess[:, 0, 0] = torch.nan
    return excess


def harmonic_period() -> Tensor:
    """Return the longest period, in pixels, of each harmonic of `grid_excess`: 4, 8 or 16; (16, 9)."""
    both = torch.arange(16)[:, None] | torch.arange(9)
    return torch.where(both % 4 == 0, 4, torch.where(both % 2 == 0, 8, 16))


def grid_db(excess: Tensor) -> dict[str, Tensor]:
    """Return the power mean of the excess (B, 16, 9) at the periods 4, 8 and 16, minus that of noise, in dB, each (B,).

    It is about 0 or less for a photograph. Above 0, a pattern repeats every 4 (upsampling layers), 8 (latent pixels,
    JPEG) or 16 pixels (transformer patches).
    """
    period, power = harmonic_period().to(excess.device), 10 ** (excess / 10)
    return {f"grid{k}": 10 * power[:, period == k].nanmean(1).log10() - _NOISE_DB for k in (4, 8, 16)}


def peak16(excess: Tensor) -> float:
    """Return the largest 1/16 harmonic of the excess (N, 16, 9) averaged over all images, dB.

    It finds a faint pattern that a whole set has in common. Chance alone gives about 1 for 100 images, 2.5 for 20.
    """
    return float(excess.mean(0)[harmonic_period().to(excess.device) == 16].max())
