"""The benchmark of full-size training runs: small, on the CPU, through the same code."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_full_size.py"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    sys.path.insert(0, str(SCRIPT.parent))  # as running the script does
    spec = importlib.util.spec_from_file_location("train_full_size", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(SCRIPT.parent))


@pytest.mark.slow
def test_tiny_runs_and_reports(benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = benchmark.main(["--tiny", "--bases", "bf16", "--steps", "2", "--json", str(tmp_path / "rows.json")])
    assert [(row["side"], row["base"], row["pixels"]) for row in rows] == [(64, "bf16", True), (64, "bf16", False)]
    assert all(row["seconds_per_step"] > 0 and 0 < row["trained"] < row["parameters"] for row in rows)
    assert json.loads((tmp_path / "rows.json").read_text(encoding="utf-8")) == rows
    printed = capsys.readouterr().out
    assert "| 64 | bf16 | yes |" in printed and "| 64 | bf16 | no |" in printed


def test_cases_past_the_budget_are_named_in_the_order_of_importance(benchmark: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = benchmark.main(["--budget", "-1", "--bases", "bf16", "--json", str(path)])
    assert [(row["side"], row["pixels"]) for row in rows] == [(512, True), (1024, True), (512, False), (1024, False)]
    assert {row["error"] for row in rows} == {"the budget is spent"} and json.loads(path.read_text()) == rows
