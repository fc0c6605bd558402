"""An output is made again when what it depends on has changed, and only then; an output is never an input."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from fluxsr.backbones import loading
from fluxsr.backbones.memory import Plan
from fluxsr.backbones.places import WEIGHTS_FILE
from fluxsr.cli.main import app
from fluxsr.options import ModelOptions
from fluxsr.processing import upscale_file
from fluxsr.processing.resume import NAME

Make = Callable[..., Path]


def photograph(path: Path, seed: int = 0, side: int = 32) -> Path:
    pixels = torch.rand(side, side, 3, generator=torch.Generator().manual_seed(seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 255).byte().numpy()).save(path)
    return path


def run(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def counts(result: Result) -> tuple[int, int]:
    """Images that were upscaled, and that were finished before."""
    return tuple(  # type: ignore[return-value]
        int(found[1]) if (found := re.search(rf"(\d+) {word}", result.stderr)) else 0
        for word in ("upscaled", "finished before")
    )


def retrain(adapter: Path) -> None:
    """Other weights of the same shapes, in place; the file keeps its size and times."""
    file = adapter / WEIGHTS_FILE
    before = file.stat()
    save_file({name: tensor * -2 for name, tensor in load_file(file).items()}, file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def upscale(model_folder: Path, make_adapter: Make, tmp_path: Path) -> Callable[..., tuple[int, int]]:
    """Upscales the folder "in" with the tiny model and "adapter"; gives ``counts``."""
    make_adapter()
    photograph(tmp_path / "in" / "a.png")
    photograph(tmp_path / "in" / "b.png", 1)

    def upscale(*more: str | Path) -> tuple[int, int]:
        model = ("--model", model_folder, "--adapter", tmp_path / "adapter")
        return counts(run("upscale", tmp_path / "in", "-o", tmp_path / "out", "--scale", "1", *model, *more))

    return upscale


@pytest.fixture
def loaded(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model is not loaded for every command."""
    monkeypatch.setattr(upscale_file, "load", lambda _options: pipeline)


class TestTheModel:
    def test_a_retrained_adapter_makes_all_anew(self, upscale: Any, tmp_path: Path) -> None:
        assert upscale() == (2, 0)
        before = (tmp_path / "out" / "a.png").read_bytes()
        assert upscale() == (0, 2)
        retrain(tmp_path / "adapter")
        assert upscale() == (2, 0)
        assert (tmp_path / "out" / "a.png").read_bytes() != before
        assert upscale() == (0, 2)

    @pytest.mark.usefixtures("loaded")
    def test_the_number_format_counts_and_its_spelling_does_not(self, upscale: Any) -> None:
        assert upscale("--dtype", "fp32") == (2, 0)
        assert upscale("--dtype", "bf16") == (2, 0)
        auto = "bf16" if upscale_file.best_dtype(torch.device("cpu")) == torch.bfloat16 else "fp32"
        assert upscale("--dtype", auto) == ((0, 2) if auto == "bf16" else (2, 0))
        assert upscale() == (0, 2), "auto is what was asked for by name"

    @pytest.mark.usefixtures("loaded")
    def test_what_changes_no_pixel_makes_nothing_anew_and_another_version_all(
        self, upscale: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert upscale() == (2, 0)
        assert upscale("--max-pixels", "4000", "--device", "cpu", "--memory", "8gb") == (0, 2)
        shutil.move(tmp_path / "adapter", tmp_path / "moved")
        assert upscale("--adapter", tmp_path / "moved") == (0, 2)
        monkeypatch.setattr("fluxsr.processing.resume.__version__", "0.0.1")
        assert upscale("--adapter", tmp_path / "moved") == (2, 0)

    @pytest.mark.parametrize("quantize", ["none", "nf4"])
    def test_on_a_gpu_the_plan_tells_format_and_quantization(
        self, model_folder: Path, monkeypatch: pytest.MonkeyPatch, quantize: str
    ) -> None:
        plan = Plan(torch.float16, "cuda", 512, quantize)
        monkeypatch.setattr(upscale_file, "free_bytes", lambda device: 2**30)
        monkeypatch.setattr(loading, "plan_for", lambda *_: plan)
        options = ModelOptions(model=str(model_folder), device="cpu", dtype="bf16", compile=True)
        assert upscale_file.numbers_of(options) == ["float16", quantize, "compiled", "tiles of 512"]
        assert upscale_file.numbers_of(options, tile_size=256) == ["float16", quantize, "compiled"]

    def test_workers_get_the_number_format_that_auto_stands_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(upscale_file, "best_dtype", lambda device, name: torch.bfloat16)
        assert upscale_file.with_dtype(ModelOptions(device="cpu")).dtype == "bf16"


@pytest.mark.usefixtures("loaded")
class TestOneFile:
    def test_it_is_renewed_as_a_folder_s_is(self, upscale: Any, tmp_path: Path, model_folder: Path) -> None:
        source, output = photograph(tmp_path / "a.png"), tmp_path / "b.png"

        def one(scale: str) -> tuple[int, int]:
            return counts(run("upscale", source, "-o", output, "--scale", scale, "--model", model_folder))

        assert one("2") == (1, 0) and one("2") == (0, 1)
        assert one("3") == (1, 0)
        with Image.open(output) as image:
            assert image.size == (96, 96)
        photograph(source, 5, 48)
        assert one("3") == (1, 0) and one("3") == (0, 1)
        with Image.open(output) as image:
            assert image.size == (144, 144)

    def test_one_of_a_folder_s_outputs_is_renewed(self, upscale: Any, tmp_path: Path, model_folder: Path) -> None:
        photograph(tmp_path / "in" / "deep" / "c.png")
        assert upscale() == (3, 0)
        source, output = tmp_path / "in" / "deep" / "c.png", tmp_path / "out" / "deep" / "c.png"
        assert counts(run("upscale", source, "-o", output, "--scale", "2", "--model", model_folder)) == (1, 0)
        assert not (tmp_path / "out" / "deep" / NAME).exists(), "the folder's record has it"

    def test_an_output_of_others_is_left_alone(self, tmp_path: Path, model_folder: Path) -> None:
        source, output = photograph(tmp_path / "a.png"), photograph(tmp_path / "b.png", 1)
        before = output.read_bytes()
        assert counts(run("upscale", source, "-o", output, "--model", model_folder)) == (0, 1)
        assert output.read_bytes() == before


@pytest.mark.usefixtures("loaded")
class TestResultsAreNoInputs:
    def test_what_the_record_lists_is_left_out_and_told(self, tmp_path: Path, model_folder: Path) -> None:
        photograph(tmp_path / "s" / "x.png")
        photograph(tmp_path / "s" / "deep" / "y.png")

        def upscale(*more: str | Path) -> Result:
            return run("upscale", tmp_path / "s", "-o", tmp_path / "s", "--model", model_folder, *more)

        assert counts(upscale("--suffix", "_x2", "--scale", "2")) == (2, 0)
        again = upscale("--suffix", "_x3", "--scale", "3")
        assert counts(again) == (2, 0)
        assert "2 results of earlier runs are left out" in again.stderr and NAME in again.stderr
        found = {path.relative_to(tmp_path / "s").as_posix() for path in (tmp_path / "s").rglob("*.png")}
        assert found == {f"{name}{suffix}.png" for name in ("x", "deep/y") for suffix in ("", "_x2", "_x3")}
        pattern = run("upscale", tmp_path / "s" / "*.png", "-o", tmp_path / "s", "--suffix", "_x1", "--scale", "1")
        assert counts(pattern) == (1, 0)

    def test_a_result_that_is_named_or_goes_elsewhere_is_an_input(self, tmp_path: Path, model_folder: Path) -> None:
        photograph(tmp_path / "s" / "x.png")
        model = ("--model", model_folder, "--scale", "1")
        run("upscale", tmp_path / "s", "-o", tmp_path / "s", "--suffix", "_a", *model)
        one = run("upscale", tmp_path / "s" / "x_a.png", "-o", tmp_path / "s", "--suffix", "_b", *model)
        assert counts(one) == (1, 0) and (tmp_path / "s" / "x_a_b.png").exists()
        assert counts(run("upscale", tmp_path / "s", "-o", tmp_path / "elsewhere", *model)) == (3, 0)


class TestEvaluation:
    @pytest.fixture
    def evaluate(self, tmp_path: Path, model_folder: Path, make_adapter: Make) -> Callable[..., Result]:
        make_adapter()
        for number in range(2):
            photograph(tmp_path / "benchmark" / f"{number}.png", number, 40)

        def evaluate(*more: str | Path) -> Result:
            model = ("--model", model_folder, "--adapter", tmp_path / "adapter", "--benchmark", tmp_path / "benchmark")
            scores = ("--metrics", "piqe", "--workers", "1", "--format", "json", "--keep", tmp_path / "kept")
            return run("evaluate", *model, *scores, *more)

        return evaluate

    def test_a_retrained_adapter_is_scored_with_its_own_pictures(self, evaluate: Any, tmp_path: Path) -> None:
        first = evaluate()
        assert counts(first) == (2, 0) and counts(evaluate()) == (0, 2)
        retrain(tmp_path / "adapter")
        again = evaluate()
        assert counts(again)[0] == 2 and again.stdout != first.stdout

    def test_a_changed_benchmark_is_scored_with_its_own_pictures(self, evaluate: Any, tmp_path: Path) -> None:
        first = evaluate()
        photograph(tmp_path / "benchmark" / "0.png", 9, 40)
        again = evaluate()
        assert counts(again)[0] == 1 and "1 enlarged" in again.stderr and again.stdout != first.stdout
