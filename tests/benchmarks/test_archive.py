"""benchmarks/archive.py: its stand-in model."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from fluxsr.options import UpscaleOptions
from fluxsr.processing.upscale_file import provenance_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_results_of_the_stand_in_say_how_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    stub = importlib.import_module("archive").Stub(0)
    assert provenance_of(stub, UpscaleOptions(), 4.0)["Model"] == "stub"
