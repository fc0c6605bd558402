"""The page of ``fluxsr evaluate --report``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fluxsr.cli.main import app
from fluxsr.cli.report_page import similarity_of
from fluxsr.options import ModelOptions


def photograph(path: Path, width: int, height: int, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("truth", [True, False])
def test_the_command_writes_the_page(tmp_path, truth):
    for number, name in enumerate(("one", "two", "hr")):
        photograph(tmp_path / name / "a.png", 144, 136, number)
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    reference = ["--hr", str(tmp_path / "hr")] if truth else ["--no-hr"]
    options = ["--metrics", "psnr,grid8" if truth else "grid8", "--workers", "1", "--report", str(tmp_path / "r.html")]
    result = CliRunner().invoke(app, ["evaluate", *folders, *reference, *options], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "one and two on 1 images" in text and "Comparison, image by image" in text
    assert ('alt="two - HR, x4"' in text) == truth


def test_token_similarity_is_a_cosine_for_every_block_of_the_bundled_model(tmp_path):
    images = [photograph(tmp_path / "a.png", 40, 24), photograph(tmp_path / "b.png", 80, 90)]
    found = similarity_of(ModelOptions(device="cpu"), images)
    assert list(found) == ["double-stream blocks", "single-stream blocks"]
    values = [value for row in found.values() for value in row]
    assert len(values) == 2 and all(-1 <= value <= 1 for value in values)
    assert len(set(values)) == len(values), "every block has a value of its own"
