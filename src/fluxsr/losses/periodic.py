"""How much of an error repeats at the network's own pitch; ours, not the paper's (off unless a recipe asks for it).

A model that paints in patches errs a little the same way at the same place of every patch. Squared error hardly sees
it, the eye does: half a grey level at a pitch of 16 px is a visible lattice.
"""

from __future__ import annotations

from einops import reduce
from torch import Tensor


def periodic_loss(residual: Tensor, period: int) -> Tensor:
    """Energy of the part of an error that repeats every ``period`` pixels, times the number of repetitions.

    The error is averaged over all repetitions of the period, each image and channel on its own, and its mean taken
    off; what is left is the pattern. Of white noise of variance s^2 it gives about s^2, whatever the image's size; of
    a pattern of energy p it gives p times the number of repetitions, which is why it sees faint ones.

    Args:
        residual: (B,C,H,W), what was made minus what should have been; H and W are cut to multiples of the period.
        period: in pixels of the residual, 2 or more.

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
