"""Contact sheets and curves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from fluxsr.training import pictures


def test_psnr_has_its_closed_form() -> None:
    y = torch.full((3, 4, 4), 100.0)
    assert pictures.psnr(y + 10, y) == pytest.approx(20 * math.log10(255 / 10), abs=1e-4)
    assert pictures.psnr(y + 0.4, y) == math.inf  # rounds to the same 8 bits


def test_sheet_shows_central_squares_of_any_size(tmp_path: Path) -> None:
    wide = torch.zeros(3, 8, 32)
    wide[:, :, 12:20] = 200.6
    small = torch.full((3, 4, 6), 300.0)
    pictures.sheet(tmp_path / "sheet.png", [[wide, small], [small, wide]], side=8)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (16, 16)
        assert [image.getpixel(at)[0] for at in ((0, 0), (7, 7), (8, 0), (15, 7))] == [201, 201, 255, 0]
        assert [image.getpixel(at)[0] for at in ((0, 8), (15, 15))] == [255, 201]


def test_curves_of_records_that_differ(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "norm/net": 3.0}, {"step": 2, "val/psnr": 20.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert pictures.curves(tmp_path) == {}
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > image.height  # three curves side by side


def test_no_records_no_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    assert pictures.curves(tmp_path) == {}
    assert not (tmp_path / "curves.png").exists()
