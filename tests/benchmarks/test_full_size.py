"""The benchmark of inference at full size: small, on the CPU, through the same code."""

from __future__ import annotations

import importlib
import json
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
    names = ["compiled-1024", "vae-compiled-contiguous-1024", "together-1024", "best-1024"]
    options = ["--best", "compiled", "products", "vae_compiled"]
    compiled, code, *others = benchmark.main(["--tiny", *options, "--rows", *names])["rows"]
    assert (compiled["compiled_blocks"], compiled["graphs"]) == (2, 2)  # one double and one single block
    rows = {row["name"]: row for row in [code, *others]}
    assert rows["together-1024"]["graphs"] + rows["vae-compiled-contiguous-1024"]["graphs"] == 2  # encoder, decoder
    assert rows["best-1024"]["skipped"] == "the same as together-1024"


def test_rows_past_the_budget_are_named(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    results = benchmark.main(["--tiny", "--budget", "-1", "--rows", "folded-512", "fp8-1024"])
    assert [row["skipped"] for row in results["rows"]] == ["the budget is spent"] * 2
    assert "| fp8-1024 |" in capsys.readouterr().out


def test_the_best_is_the_faster_of_each_part(benchmark: ModuleType) -> None:
    times = {  # transformer, and each half of the autoencoder
        "folded-1024": ((), 2.0, 1.0),
        "a": (("compiled",), 1.5, 1.1),
        "b": (("compiled", "fused_qkv"), 1.4, 1.1),
        "c": (("products", "channels_last"), 2.1, 0.6),
        "d": (("channels_last",), 2.1, 1.6),
    }
    rows = [
        {"name": name, "changes": changes, "transformer": walk, "encode": code, "decode": code}
        | {"side": 1024, "model": "folded", "tokens": 512}
        for name, (changes, walk, code) in times.items()
    ]
    assert benchmark.best(rows) == ("compiled", "fused_qkv", "products", "channels_last")
    cheap = {**rows[0], "name": "e", "changes": ("summed",), "encode": 0.1, "decode": 0.1}
    assert benchmark.best([*rows, cheap | {"side": 512}, cheap | {"tokens": 64}]) == benchmark.best(rows)
    assert benchmark.best(rows[:1]) == benchmark.best(rows[1:]) == benchmark.best([]) == ()  # nothing to compare


def test_a_model_is_as_it_was_after_a_row(benchmark: ModuleType) -> None:
    models = benchmark.Models(torch.device("cpu"), True)
    pipe = models.pipeline("folded", 8)
    with benchmark.changed(models, pipe, ("channels_last", "summed", "fused_qkv", "_native_flash")):
        assert not pipe.vae.decoder.conv_in.weight.is_contiguous()
        assert type(pipe.vae.decoder.conv_norm_out) is not torch.nn.GroupNorm
        assert all(block.attn.fused_projections for block in pipe.transformer.transformer_blocks)
    assert pipe.vae is models.vae and pipe.vae.decoder.conv_in.weight.is_contiguous()
    assert type(pipe.vae.decoder.conv_norm_out) is torch.nn.GroupNorm
    for block in pipe.transformer.transformer_blocks:
        assert block.attn.processor._attention_backend.value == "native" and not block.attn.fused_projections
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
