"""The benchmark of inference at full size: small, on the CPU, through the same code."""

from __future__ import annotations

import importlib
import json
from copy import deepcopy
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
RUN = [
    *("unfolded-1024", "folded-1024", "products-1024", "folded-512", "cudnn-attention-1024", "folded-2048-batch-4"),
    *("offloaded-1024", "fp8-1024"),
]  # in the order of the table


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
    assert rows["folded-1024"]["psnr"] is None and rows["folded-1024"]["worst"] == 0  # against itself
    assert rows["offloaded-1024"]["psnr"] is None  # equal: not a bit changes
    assert rows["fp8-1024"]["psnr"] > rows["folded-1024"]["no_step_psnr"]
    assert "psnr" not in rows["unfolded-1024"]  # it came before the picture to compare with
    assert all(f"| {name} |" in printed for name in RUN) and "4 tiles of 144 px, 4 at a time" in printed


def test_all_blocks_of_the_folded_model_are_compiled_once(benchmark: ModuleType) -> None:
    torch._dynamo.reset()
    names = ["compiled-1024", "vae-compiled-1024", "together-1024"]
    rows = benchmark.main(["--tiny", "--rows", *names])["rows"]
    assert [row["name"] for row in rows] == names
    assert [row["graphs"] for row in rows] == [2, 2, 0]  # a double and a single block; encoder, decoder; no more
    assert rows[0]["compiled_blocks"] == rows[2]["compiled_blocks"] == 2
    assert rows[2]["changes"] == (*rows[0]["changes"], *rows[1]["changes"])


def test_the_pipeline_compiles_as_the_rows_called_together(benchmark: ModuleType) -> None:
    from fluxsr.backbone import compiling

    models = benchmark.Models(torch.device("cpu"), True)
    pipe = models.pipeline("folded", 8)
    shipped = deepcopy(pipe.vae)
    compiling.compile_(None, shipped, backend="eager")
    (row,) = (row for row in benchmark.ROWS if row.name == "together-1024")
    with benchmark.changed(models, pipe, row.changes):
        assert [type(module) for module in pipe.vae.modules()] == [type(module) for module in shipped.modules()]
        for vae in (pipe.vae, shipped):
            assert vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
            assert vae.encoder._compiled_call_impl is not None and vae.decoder._compiled_call_impl is not None


def test_rows_past_the_budget_are_named(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    results = benchmark.main(["--tiny", "--budget", "-1", "--rows", "folded-512", "fp8-1024"])
    assert [row["skipped"] for row in results["rows"]] == ["the budget is spent"] * 2
    assert "| fp8-1024 |" in capsys.readouterr().out


def test_a_model_is_as_it_was_after_a_row(benchmark: ModuleType) -> None:
    models = benchmark.Models(torch.device("cpu"), True)
    pipe = models.pipeline("folded", 8)
    with benchmark.changed(models, pipe, ("channels_last", "summed", "_native_flash")):
        assert not pipe.vae.decoder.conv_in.weight.is_contiguous()
        assert type(pipe.vae.decoder.conv_norm_out) is not torch.nn.GroupNorm
    assert pipe.vae is models.vae and pipe.vae.decoder.conv_in.weight.is_contiguous()
    assert type(pipe.vae.decoder.conv_norm_out) is torch.nn.GroupNorm
    for block in pipe.transformer.transformer_blocks:
        assert block.attn.processor._attention_backend.value == "native"
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
