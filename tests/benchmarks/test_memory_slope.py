"""The benchmark of a long run's memory runs, and measures every image."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memory_slope.py"


def test_it_prints_a_slope() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--images", "30", "--side", "24"],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1] / "src")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "images: 30," in done.stdout and re.search(r"slope .*: [+-]\d+\.\d+ kB an image", done.stdout)
