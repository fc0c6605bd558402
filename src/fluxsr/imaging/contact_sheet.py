"""A contact sheet: rows of pictures in one file, since people look rather than read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def sheet(path: Path, rows: Sequence[Sequence[Tensor]], side: int = 256) -> None:
    """Save rows of images (3,H,W) in 0..255, each shown by its central square; smaller ones stand on black."""
    lines = []
    for row in rows:
        cells = []
        for image in row:
            top, left = (max(0, (n - side) // 2) for n in image.shape[1:])
            cell = image[:, top : top + side, left : left + side].float().clamp(0, 255).round()
            cells.append(F.pad(cell, (0, side - cell.shape[2], 0, side - cell.shape[1])))
        lines.append(torch.cat(cells, dim=2))
    picture = torch.cat(lines, dim=1).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(picture).save(path)
