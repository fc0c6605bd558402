"""The benchmark of inference at full size: small, on the CPU, through the same code."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
RUN = ["unfolded-512", "folded-512", "folded-2048-batch-4", "channels-last-1024", "cudnn-attention-1024", "fp8-1024"]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)  # as running the script does
    return importlib.import_module("full_size")


def test_tiny_runs_and_reports(benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = benchmark.main(["--tiny", "--json", str(tmp_path / "r.json"), "--rows", *RUN])
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == RUN
    assert "RuntimeError" in rows.pop("cudnn-attention-1024")["skipped"]  # none on a CPU, and the run went on
    assert all(row["device_s"] > 0 and row["whole_s"] > 0 and row["tflop"] > 0 for row in rows.values())
    assert rows["folded-2048-batch-4"]["tiles"] == 4
    assert results["folding"] == {"max_abs": 0.0, "relative": 0.0}  # one image in bfloat16: no bit changes
    written = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in written["rows"]] == RUN and written["versions"]["torch"]
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in RUN) and "4 tiles of 144 px, 4 at a time" in printed


def test_all_blocks_of_the_folded_model_are_compiled(benchmark: ModuleType) -> None:
    (row,) = benchmark.main(["--tiny", "--rows", "compiled-1024"])["rows"]
    assert (row["compiled_blocks"], row["graphs"]) == (2, 2)  # one double and one single block


def test_rows_past_the_budget_are_named(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    results = benchmark.main(["--tiny", "--budget", "-1", "--rows", "folded-512", "fp8-1024"])
    assert [row["skipped"] for row in results["rows"]] == ["the budget is spent"] * 2
    assert "| fp8-1024 |" in capsys.readouterr().out


def test_the_best_changes_are_those_that_saved_time(benchmark: ModuleType) -> None:
    times = {"folded-1024": ((), 1.0), "a": (("_native_flash",), 0.9), "b": (("_native_cudnn",), 0.8)}
    rows = [{"name": name, "changes": changes, "device_s": took} for name, (changes, took) in times.items()]
    assert benchmark.best(rows) == ("_native_cudnn",)
    assert benchmark.best([*rows, {"name": "c", "changes": ("channels_last",), "device_s": 0.7}]) == (
        "channels_last",
        "_native_cudnn",
    )
    assert benchmark.best([*rows[:1], {"name": "d", "changes": ("_native_flash",), "device_s": 1.1}]) == ()
    assert benchmark.best([]) == ()


def test_a_model_is_as_it_was_after_a_row(benchmark: ModuleType) -> None:
    models = benchmark.Models(torch.device("cpu"), True)
    pipe = models.pipeline("folded", 8)
    with benchmark.changed(pipe, ("channels_last", "_native_flash"), True):
        assert not pipe.vae.decoder.conv_in.weight.is_contiguous()
    assert pipe.vae.decoder.conv_in.weight.is_contiguous()
    assert {block.attn.processor._attention_backend.value for block in pipe.transformer.transformer_blocks} == {
        "native"
    }
    assert models.pipeline("folded", 4).transformer is pipe.transformer
    assert models.pipeline("unfolded", 4).transformer is not pipe.transformer


def test_work_is_counted_as_the_architecture_does(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import measuring
    import random_flux

    with torch.device("meta"):
        flux = random_flux.FluxTransformer2DModel(**random_flux.FLUX_DEV)
    assert sum(p.numel() for p in flux.parameters()) == 11_901_408_320
    assert measuring.transformer_flop(flux, 1024, 512) == pytest.approx(74.38e12, rel=1e-3)
    assert measuring.vae_flop(1024, False) == pytest.approx(15.35e12, rel=1e-3)
