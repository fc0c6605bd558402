"""Contact sheets: rows of images in one file, to compare results by eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def contact_sheet(path: Path, rows: Sequence[Sequence[Tensor]], side: int = 256) -> None:
    """Save a grid of images.

    Args:
        path: output file; its ending decides on the format.
        rows: images (3,H,W) in 0..255. Each is cropped to its central square; smaller ones are padded with black.
        side: side of a square, in pixels.
    """
    lines = []
    for row in rows:
        cells = []
        for image in row:
            top, left = (max(0, (n - side) // 2) for n in image.shape[1:])
            cell = image[:, top : top + side, left : left + side].float().clamp(0, 255).round()
            cells.append(F.pad(cell, (0, side - cell.shape[2], 0, side - cell.shape[1])))
        lines.append(torch.cat(cells, dim=2))
    grid = torch.cat(lines, dim=1).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(grid).save(path)
