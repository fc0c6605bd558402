"""Periodic loss: the part of an error that repeats with the patch period. It is ours, not the paper's; off by default.

A model that works in patches makes a similar error at the same position of every patch. Squared error hardly responds
to it, but half a grey level at a period of 16 pixels is a visible lattice.
"""

from __future__ import annotations

from einops import reduce
from torch import Tensor


def periodic_loss(residual: Tensor, period: int) -> Tensor:
    """Return the energy of the part of an error that repeats every ``period`` pixels, times the number of repetitions.

    The error of each image and channel is averaged over all repetitions of the period, and its mean is subtracted; the
    rest is the pattern. White noise of variance s^2 gives about s^2 at any image size. A pattern of energy p gives p
    times the number of repetitions, so faint patterns count.

    Args:
        residual: output minus target, (B,C,H,W); H and W are cropped to multiples of the period.
        period: period in pixels, 2 or more.

    Returns:
        Scalar, float32.
    """
    if period < 2:
        raise ValueError(f"period is {period}; a pattern repeats every 2 pixels or more")
    rows, columns = residual.shape[-2] // period, residual.shape[-1] // period
    if not rows or not columns:
        raise ValueError(f"a residual of {tuple(residual.shape[-2:])} does not hold one period of {period}")
    whole = residual[..., : rows * period, : columns * period].float()
    pattern = reduce(whole, "b c (i y) (j x) -> b c y x", "mean", y=period, x=period)
    pattern = pattern - pattern.mean(dim=(2, 3), keepdim=True)
    return pattern.square().mean() * (rows * columns)
