"""The benchmark of archives runs, and compares every way with the loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "archive.py"


@pytest.mark.slow
def test_it_prints_ratios_and_writes_json(tmp_path: Path) -> None:
    options = ["--images", "3", "--side", "24", "--rounds", "1", "--workers", "1", "--stub", "0.01"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options, "--json", str(tmp_path / "a.json")],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1] / "src")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "| loop |" in done.stdout and "| 1.00 |" in done.stdout and "| 1 workers |" in done.stdout
    assert set(json.loads((tmp_path / "a.json").read_text())["images_per_second"]) == {"loop", "1 workers"}
