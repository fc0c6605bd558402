"""``fluxsr evaluate`` as it is typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from fluxsr.cli.main import app
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing import benchmarking
from fluxsr.processing.inputs import Plan
from fluxsr.processing.runner import Report as Done


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """hr, and methods good and poor of it, three images each of 144x160."""
    draw = np.random.default_rng(0)
    for stem in "abc":
        hr = draw.integers(20, 236, (144, 160, 3))
        for name, noise in (("hr", 0), ("good", 4), ("poor", 16)):
            (tmp_path / name).mkdir(exist_ok=True)
            pixels = hr + draw.integers(-noise, noise + 1, hr.shape)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{stem}.png")
    return tmp_path


LIGHT = ("--metrics", "psnr,ssim,grid8,peak16", "--workers", "1")


def test_lpips_by_the_weights_that_are_named(folders, lpips_weights):
    asked = ("--metrics", "lpips", "--workers", "1", "--format", "csv")
    result = run(folders / "good", folders / "hr", *asked, "--lpips-weights", lpips_weights)
    assert result.exit_code == 0 and "lpips" in result.stdout, result.output
    result = run(folders / "good", folders / "hr", *asked, "--lpips-weights", folders / "absent.safetensors")
    assert result.exit_code == 2 and "no LPIPS weights at" in result.output


def test_two_methods_are_compared(folders):
    result = run(folders / "good", folders / "poor", "--hr", folders / "hr", *LIGHT, "--format", "markdown", "--ci")
    assert result.exit_code == 0, result.output
    scores, comparison = result.stdout.split("| metric |")
    assert "| name | n | psnr ↑" in scores and "95% interval" in scores and "[" in scores
    assert " good | poor | difference | low | high | wins |" in comparison
    assert "100% | leaves out 0 |" in comparison
    run(folders / "good", folders / "poor", "--hr", folders / "hr", *LIGHT, "-o", folders / "t.json")
    found = json.loads((folders / "t.json").read_text(encoding="utf-8"))
    assert found["pair"] == ["good", "poor"] and found["paired"][0]["win_rate"] == 1
    low, high = found["intervals"]["good"]["psnr"]
    assert low <= found["reports"][0]["mean"]["psnr"] <= high


def test_methods_without_ground_truth(folders):
    result = run(
        folders / "good", folders / "poor", "--no-hr", "--metrics", "piqe", "--format", "csv", "--workers", "1"
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("name,n,piqe ↓\ngood,3,")


@pytest.mark.parametrize(
    ("name", "start"), [("t.md", "| name"), ("t.tex", "% psnr"), ("t.csv", "name,"), ("t.json", "{")]
)
def test_the_ending_tells_the_format(folders, name, start):
    result = run(folders / "good", folders / "hr", *LIGHT, "-o", folders / "new" / name)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert (folders / "new" / name).read_text(encoding="utf-8").startswith(start)


def test_a_table_in_the_terminal(folders):
    result = run(folders / "good", folders / "hr", *LIGHT)
    for word in ("good", "psnr ↑", "grid8 →0", "border of 0 px cropped"):
        assert word in result.stdout
    assert "difference" not in result.stdout


def test_list_names_metrics_and_protocols():
    result = run("--list")
    assert result.exit_code == 0
    for word in ("maniqa-pipal", "PIPAL weights", "realset65", "drealsr-crops", "AlexNet", "whole image (cvvdp, MIT)"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give folders"),
        (["poor", "--model", "bundled", "--benchmark", "b"], "1 of 3 images are not in poor: c"),
        (["good", "--benchmark", "b", "--no-hr"], "contradict"),
        (["good", "poor", "--blind", "pairs", "--metrics", "psnr"], "computes no metric"),
        (["--model", "bundled"], "give folders"),
        (["good", "--protocol", "drealsr"], "it goes with --benchmark"),
        (["good", "--hr", "hr", "--no-hr"], "contradict"),
        (["good", "hr", "-o", "table"], "does not tell the format"),
        (["good", "hr", "-o", "t.md", "--format", "terminal"], "does not tell the format"),
        (["good", "poor", "hr"], "3 folders"),
        (["absent", "hr"], "no such folder"),
        (["good", "hr", "--metrics", "pnsr"], "did you mean 'psnr'"),
        (["--model", "bundled", "--benchmark", "hr", "--protocol", "drealsr"], "it has 3 images, not 93"),
    ],
)
def test_wrong_usage_is_a_line_and_exit_2(folders, benchmark, monkeypatch, arguments, message):
    (folders / "poor" / "c.png").rename(folders / "poor" / "d.png")
    monkeypatch.chdir(folders)
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert not (folders / "t.md").exists()


def test_an_output_that_cannot_be_written_fails_before_the_work(folders):
    (folders / "t.md").mkdir()
    result = run(folders / "good", folders / "hr", *LIGHT, "-o", folders / "t.md")
    assert result.exit_code == 1 and "it is a folder" in result.output


@pytest.fixture
def nearest(monkeypatch) -> list[tuple[ModelOptions, UpscaleOptions]]:
    """A model that repeats pixels, in place of the pipeline; the options it was given."""
    calls: list[tuple[ModelOptions, UpscaleOptions]] = []

    def run_plan(plan: Plan, model: ModelOptions, options: UpscaleOptions) -> Done:
        calls.append((model, options))
        for job in plan.jobs:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(job.source) as image:
                image.resize((4 * image.width, 4 * image.height), Image.Resampling.NEAREST).save(job.target)
        return Done(done=[job.target for job in plan.jobs], seconds=3.0)

    monkeypatch.setattr(benchmarking.upscale_file, "run", run_plan)
    return calls


@pytest.fixture
def benchmark(folders: Path) -> Path:
    """The images of hr as a benchmark, and a method `off` whose images are brighter by 2."""
    for name in ("b/LR", "b/HR", "off"):
        (folders / name).mkdir(parents=True)
    for path in (folders / "hr").iterdir():
        with Image.open(path) as image:
            image.save(folders / "b" / "HR" / path.name)
            image.resize((40, 36), Image.Resampling.BOX).save(folders / "b" / "LR" / path.name)
            image.point(lambda value: value + 2).save(folders / "off" / path.name)
    return folders / "b"


def test_folders_and_a_model_share_the_table_of_a_benchmark(folders, benchmark, nearest):
    others = (folders / "off", folders / "good")
    result = run(*others, "--model", "mine", "--benchmark", benchmark, *LIGHT, "--ci", "--format", "csv")
    assert result.exit_code == 0, result.output
    rows = {row[0]: row for row in csv.reader(result.stdout.splitlines())}
    assert list(rows) == ["name", "bicubic", "mine", "off", "good", "HR"]
    expected = f"{20 * np.log10(255**2 / (2 * 219)):.2f}"  # luma differs by 2 * 219 / 255
    assert rows["off"][1:3] == ["3", f"{expected} [{expected}, {expected}]"]
    result = run(others[0], "--benchmark", benchmark, *LIGHT, "--format", "csv")
    assert [line.split(",")[0] for line in result.stdout.splitlines()[:4]] == ["name", "bicubic", "off", "HR"]


def test_the_page_of_published_results_is_that_of_the_command():
    page = Path(__file__).parents[2] / "docs" / "table.md"
    result = run("--published")
    assert result.stdout == page.read_text(encoding="utf-8"), "run fluxsr evaluate --published > docs/table.md"


def test_a_model_on_a_benchmark_stands_beside_bicubic_and_ground_truth(folders, benchmark, nearest):
    options = (*LIGHT, "-o", folders / "t.json", "--keep", folders / "k", "--device", "cpu")
    model = ("--model", "mine", "--adapter", "sharp", "--dtype", "fp32", "--strength", "0.5", "--color-fix", "none")
    result = run(*model, "--tile-overlap", "16", "--benchmark", benchmark, *options)
    assert result.exit_code == 0, result.output
    assert "no known protocol: 3 images with ground truth" in result.stderr
    found = json.loads((folders / "t.json").read_text(encoding="utf-8"))
    assert [report["name"] for report in found["reports"]] == ["bicubic", "mine + sharp", "HR"]
    assert "psnr" not in found["reports"][2]["mean"] and found["pair"] == ["mine + sharp", "bicubic"]
    wanted = ModelOptions(model="mine", adapter="sharp", dtype="fp32", device="cpu")
    assert nearest == [(wanted, UpscaleOptions(scale=4, strength=0.5, color_fix="none", tile_overlap=16))]
    cost = found["reports"][1]["mean"]
    assert cost["seconds"] == pytest.approx(3 / (3 * 144 * 160 / 1e6), abs=1e-4) and cost["memory"] > 0.1
    assert "seconds" not in found["reports"][0]["mean"]
    assert found["protocol"] is None and found["published"] == {}
    assert sorted(path.name for path in (folders / "k" / "bicubic").glob("[!.]*")) == ["a.png", "b.png", "c.png"]


def test_div2k_is_degraded_by_the_seed(tmp_path, nearest):
    for number in range(801, 901):
        pixels = np.random.default_rng(number).integers(0, 256, (35, 38, 3), dtype=np.uint8)
        (tmp_path / "HR").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "HR" / f"0{number}.png")
    options = ("--metrics", "psnr", "--workers", "1", "--degrade", "bicubic")
    command = ("--model", "mine", "--benchmark", tmp_path, "--protocol", "div2k-val", *options)
    result = run(*command, "--keep", tmp_path / "k", "--format", "markdown")
    assert result.exit_code == 0, result.output
    assert "LR images made by bicubic, seed 0: not those of any paper" in result.stderr
    assert "protocol: DIV2K-val" in result.stdout and "FluxSR (published) | 100 | 22.30" in result.stdout
    with Image.open(tmp_path / "k" / "LR" / "0801.png") as low, Image.open(tmp_path / "k" / "HR" / "0801.png") as high:
        assert low.size == (9, 8) and high.size == (36, 32)


def test_a_blind_comparison_computes_no_metric_and_its_result_is_printed(folders):
    asked = (folders / "good", folders / "poor", "--blind", folders / "pairs")
    result = run(*asked)
    assert result.exit_code == 0 and "index.html" in result.stderr and not result.stdout, result.output
    key = json.loads((folders / "pairs" / "key.json").read_text(encoding="utf-8"))["pairs"]
    (folders / "c.json").write_text(json.dumps({number: pair["first"] for number, pair in key.items()}))
    result = run("--blind", folders / "pairs", "--choices", folders / "c.json")
    assert "good is preferred to poor in 100% of 3 pairs, 95 % interval 44% to 100%" in result.stdout
    result = run(*asked)
    assert result.exit_code == 2 and "in use" in result.output
    assert run("--choices", folders / "c.json").exit_code == 2
