"""Quality metrics of one result that need no reference and no download, to find the outputs to inspect first."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from fluxsr.evaluation.metrics import luma
from fluxsr.evaluation.piqe import piqe
from fluxsr.evaluation.spectra import grid_db, grid_excess, power_spectrum, radial_power
from fluxsr.imaging import io, resize

SIDE = 512  # side of the central crop on which everything except the fidelity is measured
_LEAST = 128  # smallest side for which spectra are measured


@torch.no_grad()
def measured(lr: Tensor, output: Path, max_pixels: int) -> dict[str, float]:
    """Measure a result as it was written.

    - fidelity_db: PSNR in RGB of the result, resized to the input's size, against the input. A low value means that
      colours or content changed.
    - fine_db: mean level of the luma's spectrum in 1/4..1/2 cycles per pixel relative to 1/8..1/4. A value near 0
      means noise, and one far below the rest of an archive means blur.
    - grid8_db, grid16_db: excess at periods of 8 and 16 pixels (``evaluation.spectra.grid_db``); above 0 a
      pattern repeats.
    - piqe: 0 to 100, share of the active blocks that look blurred, blocky or noisy; lower is better.

    Args:
        lr: the input, (1,3,h,w), RGB in [0,1].
        output: file of the result.
        max_pixels: largest number of pixels to read.

    Returns:
        The finite metrics by name. Spectra need sides of 128 pixels or more.
    """
    hr = io.read(output, max_pixels).lr  # (1,3,H,W)
    error = (resize.bicubic(hr, (lr.shape[-2], lr.shape[-1])) - lr).square().mean().item()
    found = {"fidelity_db": -10 * math.log10(max(error, 1e-10))}
    piece = _centre(hr)
    found["piqe"] = piqe(piece).item()
    if min(piece.shape[-2:]) >= _LEAST:
        rings = 10 * radial_power(power_spectrum(luma(piece)))[0].log10()  # (64,)
        grid = grid_db(grid_excess(piece))
        found |= {"fine_db": (rings[32:].mean() - rings[16:32].mean()).item()}
        found |= {"grid8_db": grid["grid8"].item(), "grid16_db": grid["grid16"].item()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _centre(image: Tensor) -> Tensor:
    top, left = (max(0, (side - SIDE) // 2) for side in image.shape[-2:])
    return image[..., top : top + SIDE, left : left + SIDE]
