"""Contact sheets."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from fluxsr.imaging.io import contact_sheet


def test_sheet_shows_central_squares_of_any_size(tmp_path: Path) -> None:
    wide = torch.zeros(3, 8, 32)
    wide[:, :, 12:20] = 200.6
    small = torch.full((3, 4, 6), 300.0)
    contact_sheet(tmp_path / "sheet.png", [[wide, small], [small, wide]], side=8)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (16, 16)
        assert [image.getpixel(at)[0] for at in ((0, 0), (7, 7), (8, 0), (15, 7))] == [201, 201, 255, 0]
        assert [image.getpixel(at)[0] for at in ((0, 8), (15, 15))] == [255, 201]
