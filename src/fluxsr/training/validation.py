"""Scores of a checkpoint on validation photographs and pairs. Only LPIPS needs weights."""

from __future__ import annotations

from collections.abc import Callable
from math import lcm

import torch
from torch import Tensor

from fluxsr.degradation import DegradationSettings, degrade
from fluxsr.errors import InputError
from fluxsr.evaluation.metrics import psnr_y, ssim_y
from fluxsr.evaluation.spectra import SMALLEST, band_db, grid_db, grid_excess, peak16
from fluxsr.imaging.photographs import DataConfig, read_photographs, whole_tokens
from fluxsr.imaging.resize import bicubic
from fluxsr.keyed import keyed_generator
from fluxsr.training.file_pairs import file_pairs

Distance = Callable[[Tensor, Tensor], Tensor]


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


def validation_pairs(folder: str, scale: int, limit: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Read pairs (LR, HR) of a folder, (1,3,H,W) in [0,1], with HR cropped to whole tokens and LR to match.

    Raises:
        InputError: the folder has no pairs, or one is too small for its spectrum to be measured.
    """
    found, multiple = [], lcm(16, scale)
    for stem, (lr, hr) in file_pairs(folder, scale, limit).items():
        height, width = (side // multiple * multiple for side in hr.shape[1:])
        if min(height, width) < SMALLEST:
            raise InputError(
                f"validation pair {stem} of {folder} has {hr.shape[2]}x{hr.shape[1]} pixels; validation_pairs needs "
                f"HR images with sides of {SMALLEST} pixels or more"
            )
        found.append((lr[None, :, : height // scale, : width // scale] / 255, hr[None, :, :height, :width] / 255))
    return found


def enlarged_photograph(photo: Tensor, settings: DegradationSettings, seed: int, index: int) -> Tensor:
    """Degrade a photograph (1,3,H,W), the same way at every validation, and resize it back to its own size."""
    lr = degrade(photo, settings, keyed_generator(seed, 5, index))
    return bicubic(lr, (photo.shape[-2], photo.shape[-1]))


@torch.no_grad()
def spectral_scores(
    output: list[Tensor], photos: list[Tensor], name: str = "val", distance: Distance | None = None
) -> dict[str, float]:
    """Return mean PSNR, SSIM and spectral scores of outputs against photographs, both (1,3,H,W) in [0,1].

    Args:
        output: the outputs.
        photos: the photographs.
        name: beginning of the scores' names.
        distance: LPIPS of two batches in [-1,1]; None leaves it out.
    """
    rows, excess, lpips = [], [], []
    for x, y in zip(output, photos, strict=True):
        x = (x * 255).round() / 255
        excess.append(grid_excess(x))
        grids = grid_db(excess[-1])
        rows.append([psnr_y(x, y), ssim_y(x, y), *band_db(x, y), *(grids[f"grid{k}"] for k in (4, 8, 16))])
        if distance:
            lpips.append(float(distance(x * 2 - 1, y * 2 - 1).mean()))
    means = [sum(float(value) for value in column) / len(rows) for column in zip(*rows, strict=True)]
    names = ("psnr", "ssim", "mid_db", "hf_db", "grid4", "grid8", "grid16")
    scores = {f"{name}/lpips": round(sum(lpips) / len(lpips), 4)} if lpips else {}
    scores |= {f"{name}/{score}": round(mean, 4) for score, mean in zip(names, means, strict=True)}
    return scores | {f"{name}/peak16": round(peak16(torch.cat(excess)), 3)}
