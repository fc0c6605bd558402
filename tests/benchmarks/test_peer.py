"""The comparison with the peer prints the ratio of the rounds."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import peer  # noqa: E402


def test_the_table_says_how_many_times_fewer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def taking(seconds: float) -> peer.Upscale:
        def upscale(image: Image.Image) -> Image.Image:
            clock[0] += seconds
            return image

        return upscale

    monkeypatch.setattr(peer, "peer", lambda models, threads: taking(6.0))
    monkeypatch.setattr(peer, "ours", lambda model, dtype: taking(2.0))
    assert peer.main(["--models", "-", "--dtypes", "fp32", "--sizes", "125", "--rounds", "2"]) == 0
    assert "| 500x500 | ours, fp32 | 2.00 | 8.00 | 3.0 |" in capsys.readouterr().out
