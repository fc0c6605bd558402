"""The benchmark of inference at full size runs with a small model on the CPU."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fluxsr.backbones.parts import parameter_count

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)  # as running the script does
    return importlib.import_module("full_size")


@pytest.mark.slow
def test_tiny_measures_and_reports(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "CALLS", 1)
    names = ["folded-1024", "unfolded-1024", "fp8-1024"]
    results = benchmark.main(["--tiny", "--json", str(tmp_path / "r.json"), "--rows", *names])
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == names
    assert all(rows[name]["whole_s"] > 0 and rows[name]["transformer"] > 0 for name in names[:2])
    assert rows["folded-1024"]["psnr"] is None, "it is compared with itself"
    assert rows["unfolded-1024"]["worst"] == 0, "folding changes no bit of one image in bfloat16"
    assert rows["fp8-1024"]["psnr"] > 20, "fewer bits change the picture a little"
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["versions"]["torch"]
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in names)


def test_the_budget_is_kept(benchmark: ModuleType) -> None:
    rows = benchmark.main(["--tiny", "--budget", "-1", "--rows", "folded-512"])["rows"]
    assert [row["skipped"] for row in rows] == ["the budget is spent"]


@pytest.mark.slow
def test_klein_s_rows_run(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "CALLS", 1)
    monkeypatch.setattr(benchmark, "ROWS", [row for row in benchmark.ROWS if row.side < 2048 and not row.compiled])
    rows = benchmark.main(["--tiny", "--base", "klein"])["rows"]
    assert [row["name"] for row in rows] == ["klein-1024", "klein-512", "klein-int8-1024", "klein-int8-512"]
    for row in rows:
        assert "skipped" not in row and row["all_of_ceiling"] > 0 and row["whole_s"] > 0, row


@pytest.mark.slow
def test_compiled_rows_run(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "CALLS", 1)
    (row,) = benchmark.main(["--tiny", "--rows", "compiled-512"])["rows"]
    assert row["first_call_s"] > row["device_s"], "the first call compiles"


@pytest.mark.parametrize(
    ("base", "count", "flop", "vae"),
    [("flux", 11_901_408_320, 74.38e12, 83_819_683), ("klein", 3_875_544_576, 34.79e12, 84_046_372)],
)
def test_work_is_counted(benchmark: ModuleType, base: str, count: int, flop: float, vae: int) -> None:
    measuring, meta = benchmark.measuring, torch.device("meta")
    transformer = measuring.transformer(meta, base=base)
    assert parameter_count(transformer) == count and parameter_count(measuring.autoencoder(meta, base=base)) == vae
    assert measuring.transformer_flop(transformer, 1024, 512) == pytest.approx(flop, rel=1e-3)
    assert 10e12 < measuring.autoencoder_flop(1024, base=base) < 20e12
