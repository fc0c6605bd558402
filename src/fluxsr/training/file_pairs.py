"""Pairs of image files: a folder with LR/ and HR/, whose files are matched by stem."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.evaluation.folders import check_stems, list_images, load_image


def file_pairs(folder: str | Path, scale: int, limit: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """Read the pairs (LR, HR) of a folder, each (3,H,W) uint8, by stem; the first ``limit``, or all.

    Raises:
        InputError: a folder or a partner is missing, a file cannot be read, or HR is not ``scale`` times LR.
    """
    low, high = (list_images(Path(folder, name)) for name in ("LR", "HR"))
    check_stems(list(low), high, Path(folder, "HR"))
    check_stems(list(high), low, Path(folder, "LR"))
    pairs = {stem: (_pixels(path), _pixels(high[stem])) for stem, path in list(low.items())[: limit or None]}
    for stem, (lr, hr) in pairs.items():
        (h, w), (height, width) = lr.shape[1:], hr.shape[1:]
        if (height, width) != (scale * h, scale * w):
            raise InputError(
                f"pair {stem} of {folder}: HR is {width}x{height} and LR {w}x{h} pixels; HR must be {scale} times LR, "
                f"{scale * w}x{scale * h}"
            )
    return pairs


def _pixels(path: Path) -> Tensor:
    return (load_image(path)[0] * 255).round().to(torch.uint8)
