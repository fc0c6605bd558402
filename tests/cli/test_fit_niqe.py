"""``fluxsr fit-niqe`` as it is typed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner, Result

from fluxsr.cli.main import app
from fluxsr.evaluation.niqe import fit, read_model
from fluxsr.imaging.photographs import list_photographs


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["fit-niqe", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_model_is_that_of_the_photographs(tmp_path):
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (384, 480, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    result = run(tmp_path, "-o", tmp_path / "own.npz")
    assert result.exit_code == 0, result.output
    assert "NIQE's model of 4 photographs" in result.stderr
    expected = fit(photo.read()[None].double() / 255 for photo in list_photographs([str(tmp_path)]))
    found = read_model(tmp_path / "own.npz")
    assert found.mean.tolist() == expected.mean.tolist()


def test_too_few_photographs_and_wrong_endings_exit_2(tmp_path):
    Image.new("RGB", (200, 200)).save(tmp_path / "a.png")
    result = run(tmp_path, "-o", tmp_path / "own.npz")
    assert result.exit_code == 2 and "too few for 36 features" in result.stderr
    assert not (tmp_path / "own.npz").exists()
    assert run(tmp_path, "-o", tmp_path / "own.txt").exit_code == 2
    assert run(tmp_path / "none", "-o", tmp_path / "own.npz").exit_code == 2
