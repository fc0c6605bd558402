"""The quality benchmark: its rows on one small image."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "quality.py"


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quality", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture()
def folders(tmp_path: Path) -> list[str]:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for name, side in (("lr", 44), ("hr", 176)):
        (tmp_path / name).mkdir()
        Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(tmp_path / name / "a.png")
    return ["--lr", str(tmp_path / "lr"), "--hr", str(tmp_path / "hr"), "--out", str(tmp_path / "out")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["--skip-base"], ["bicubic", "strength 0", "colour fix off", "full", "HR"]),
        (["--strengths", "0.5", "1"], ["bicubic", "strength 0.5", "strength 1", "HR"]),
    ],
)
def test_rows(quality: ModuleType, folders: list[str], options: list[str], rows: list[str], tmp_path: Path) -> None:
    assert quality.main([*folders, *options]) == 0
    lines = (tmp_path / "out" / "quality.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")][2:]
    assert [line.split("|")[1].strip() for line in table] == rows
