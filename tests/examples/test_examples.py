"""The scripts and the notebook of examples/ run on the bundled model, on a small picture."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with one photograph of 32x48 pixels."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    with Image.open(EXAMPLES / "church_lr.jpg") as image:
        image.crop((0, 0, 32, 48)).save(folder / "church.png", dpi=(300, 300))
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """run(script, argument ...): as `python examples/script ...` does it; gives the exit code."""

    def work(name: str, *arguments: Any) -> int:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return work


def test_upscale_folder(run: Callable[..., int], photographs: Path, tmp_path: Path) -> None:
    assert run("upscale_folder.py", photographs, tmp_path / "out", 2) == 0
    with Image.open(tmp_path / "out" / "church.png") as image:
        assert image.size == (64, 96) and image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    (photographs / "bad.png").write_text("no picture")
    assert run("upscale_folder.py", photographs, tmp_path / "again", 2) == 1
    assert (tmp_path / "again" / "church.png").exists(), "one bad file does not stop the others"


def test_compare_strengths(run: Callable[..., int], photographs: Path, tmp_path: Path) -> None:
    run("compare_strengths.py", photographs / "church.png", tmp_path / "out.png", 0, 1)
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (2 * 128, 192 + 24)
        first, second = (image.crop((x, 0, x + 128, 192)).tobytes() for x in (0, 128))
        assert first != second


def test_diffusers_pipeline(
    run: Callable[..., int], photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("diffusers_pipeline.py", photographs / "church.png", tmp_path / "model")
    assert "x4 128x192, x2 64x96" in capsys.readouterr().out
    assert (tmp_path / "model" / "model_index.json").exists() and (tmp_path / "model" / "photo_x4.png").exists()


def test_evaluate_folder(run: Callable[..., int], photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Image.open(EXAMPLES / "church_lr.jpg") as image:
        image.resize((128, 160)).save(photographs / "church.png")
    run("evaluate_folder.py", photographs)
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert "psnr ↑" in head and [row.split(" | ")[0] for row in rows[:2]] == ["| bicubic", "| bundled"]


def test_before_after(run: Callable[..., int], photographs: Path, tmp_path: Path) -> None:
    with Image.open(photographs / "church.png") as image:
        image.convert("RGB").save(photographs / "church_lr.jpg")
    run("before_after.py", photographs, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (2 * 128 + 8, 192)


def test_the_notebook_s_cells_run_in_order(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are plain Python, so no kernel is needed; and they are stored without outputs."""
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    shutil.copy(photographs / "church.png", tmp_path / "church_lr.jpg")  # by its content a PNG
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec("".join(cell["source"]), names)
    assert names["pair"].size == (256, 192) and names["gentle"].size == (64, 96)
    assert tuple(names["hr"].shape) == (1, 3, 192, 128)


def test_every_script_is_tested_here_or_needs_photographs_that_are_not_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    untested = [path.name for path in EXAMPLES.glob("*.py") if f'run("{path.name}"' not in text]
    assert sorted(untested) == ["degradation_gallery.py", "make.py", "validation_crops.py", "web_page.py"]
