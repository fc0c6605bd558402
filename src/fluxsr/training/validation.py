"""Scores of a checkpoint on the validation photographs. They need no downloaded weights."""

from __future__ import annotations

import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.evaluation.metrics import psnr_y, ssim_y
from fluxsr.evaluation.spectra import SMALLEST, band_db, grid_db, grid_excess, peak16
from fluxsr.imaging.photographs import DataConfig, read_photographs, whole_tokens


def validation_photographs(data: DataConfig) -> list[Tensor]:
    """Read the validation photographs (3,H,W), uint8, cropped to whole tokens; an empty list if there are none.

    Raises:
        InputError: a photograph is too small for its spectrum to be measured.
    """
    if not data.validation:
        return []
    names, photos = read_photographs(data.validation, data.validation_limit)
    for name, photo in zip(names, photos, strict=True):
        if min(photo.shape[1:]) < SMALLEST:
            raise InputError(
                f"validation photograph {name} has {photo.shape[2]}x{photo.shape[1]} pixels; "
                f"data.validation needs photographs with sides of {SMALLEST} pixels or more"
            )
    return [whole_tokens(photo) for photo in photos]


def spectral_scores(output: list[Tensor], photos: list[Tensor]) -> dict[str, float]:
    """Return mean PSNR, SSIM and spectral scores of outputs against photographs, both (1,3,H,W) in [0,1]."""
    rows, excess = [], []
    for x, y in zip(output, photos, strict=True):
        x = (x * 255).round() / 255
        excess.append(grid_excess(x))
        grids = grid_db(excess[-1])
        rows.append([psnr_y(x, y), ssim_y(x, y), *band_db(x, y), *(grids[f"grid{k}"] for k in (4, 8, 16))])
    means = [sum(float(value) for value in column) / len(rows) for column in zip(*rows, strict=True)]
    names = ("psnr", "ssim", "mid_db", "hf_db", "grid4", "grid8", "grid16")
    scores = {f"val/{name}": round(mean, 4) for name, mean in zip(names, means, strict=True)}
    return scores | {"val/peak16": round(peak16(torch.cat(excess)), 3)}
