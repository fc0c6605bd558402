"""Curves."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from fluxsr.training.pictures import curves


def test_curves_of_records_that_differ(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "norm/net": 3.0}, {"step": 2, "val/psnr": 20.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert curves(tmp_path) == {}
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > image.height  # three curves side by side


def test_no_records_no_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    assert curves(tmp_path) == {}
    assert not (tmp_path / "curves.png").exists()
