"""The benchmark of full-size training runs: small, on the CPU, through the same code."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_full_size.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_full_size", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tiny_runs_and_reports(benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = benchmark.main(["--tiny", "--bases", "bf16", "--steps", "2", "--json", str(tmp_path / "rows.json")])
    assert [(row["side"], row["base"], row["pixels"]) for row in rows] == [(64, "bf16", False), (64, "bf16", True)]
    assert all(row["seconds_per_step"] > 0 and 0 < row["trained"] < row["parameters"] for row in rows)
    assert json.loads((tmp_path / "rows.json").read_text(encoding="utf-8")) == rows
    printed = capsys.readouterr().out
    assert "| 64 | bf16 | yes |" in printed and "| 64 | bf16 | no |" in printed


def test_the_full_size_is_flux_dev(benchmark: ModuleType) -> None:
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        model = FluxTransformer2DModel(**benchmark.FLUX_DEV)
    assert sum(p.numel() for p in model.parameters()) == 11_901_408_320


def test_a_case_that_fails_is_a_line_of_the_table(benchmark: ModuleType) -> None:
    row = {"side": 1024, "base": "bf16", "pixels": True, "error": "OutOfMemoryError: CUDA out of memory"}
    assert "| 1024 | bf16 | yes | OutOfMemoryError: CUDA out of memory | - |" in benchmark.table([row])
