"""The ablations: what counts as finished, what the table says, and that runs of other recipes are not mixed in."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from fluxsr import recipe
from fluxsr.errors import InputError
from fluxsr.training import run_folder
from fluxsr.training.config import DistillConfig

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ablation.py"
VALUES = {"psnr": 20.0, "ssim": 0.5, "mid_db": -1.0, "hf_db": -2.0, "grid8": 0.0, "grid16": 1.0}
ONLY = ["--only", "full", "--seeds", "0"]


@pytest.fixture
def ablation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script; its ``train_distill`` notes where it was asked to train and from what, and does as ``asked`` says."""
    spec = importlib.util.spec_from_file_location("ablation", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.trained, module.asked = [], finish  # type: ignore[attr-defined]

    def train(config: DistillConfig, run: Path) -> None:
        module.trained.append((run, config.run.resume))
        module.asked(run, config)

    monkeypatch.setattr(module, "train_distill", train)
    return module


def log(run: Path, step: int, **more: float) -> None:
    run.mkdir(parents=True, exist_ok=True)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step} | {f"val/{k}": v for k, v in (VALUES | more).items()}) + "\n")


def export(run: Path) -> None:
    (run / "model").mkdir(exist_ok=True)
    for name in ("pytorch_lora_weights.safetensors", "prompt_embeds.safetensors"):
        (run / "model" / name).touch()


def finish(run: Path, config: DistillConfig) -> None:
    log(run, config.run.steps, psnr=20.0 + config.run.seed)
    run_folder.write_recipe(run, config)
    export(run)


def full(*overrides: str) -> DistillConfig:
    return recipe.load(DistillConfig, SCRIPT.parents[1] / "recipes" / "ablation" / "full.yaml", overrides)


def test_the_documented_order_is_understood(ablation: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--out", "x", "--seeds", "0,2", "--only", "full,no_adl", "run.steps=3", "rank=4"]
    options = ablation.parse(line)
    assert options.seeds == [0, 2] and options.only == ["full", "no_adl"]
    assert options.overrides == ["run.steps=3", "rank=4"]
    assert vars(ablation.parse([*line[-2:], *line[:-2]])) == vars(options)
    assert ablation.parse(["--out", "x"]).seeds == [0, 1, 2]
    with pytest.raises(SystemExit):
        ablation.parse(["--out", "x", "--seeds", "first"])
    assert "--seeds" in capsys.readouterr().err


def test_every_recipe_is_planned_seed_by_seed(ablation: ModuleType, tmp_path: Path) -> None:
    plan = ablation.planned(ablation.parse(["--out", str(tmp_path), "--seeds", "3,4", "run.steps=7"]))
    names = sorted(path.stem for path in ablation.RECIPES.glob("*.yaml"))
    assert list(plan) == [tmp_path / name / seed for seed in ("3", "4") for name in names]
    assert plan[tmp_path / "no_adl" / "4"] == full("adl_weight=0", "run.steps=7", "run.seed=4")


def test_a_finished_run_is_not_repeated(ablation: ModuleType, tmp_path: Path) -> None:
    config = full("run.steps=10")
    finish(tmp_path, config)
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 1')  # cut by a kill
    assert ablation.scores(tmp_path, config) == VALUES and ablation.trained == []


def test_the_last_step_must_be_measured(ablation: ModuleType, tmp_path: Path) -> None:
    config = full("run.steps=10")
    log(tmp_path, 5, psnr=1.0)
    export(tmp_path)
    assert ablation.scores(tmp_path, config) == VALUES  # of step 10, which the run then took
    assert ablation.trained == [(tmp_path, "latest")]


def test_a_run_killed_before_its_last_validation_begins_anew(ablation: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "step-00000010.pt").touch()
    assert ablation.scores(tmp_path, full("run.steps=10")) == VALUES
    assert ablation.trained == [(tmp_path, "none")]


@pytest.mark.parametrize("there", ["pytorch_lora_weights.safetensors", "prompt_embeds.safetensors", "vae"])
def test_a_run_killed_while_exporting_goes_on(ablation: ModuleType, tmp_path: Path, there: str) -> None:
    config = full("run.steps=10")
    log(tmp_path, 10)
    (tmp_path / "step-00000010.pt").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / there).touch()
    assert ablation.scores(tmp_path, config) == VALUES
    assert ablation.trained == [(tmp_path, "latest")]


def test_a_run_that_measures_nothing_is_one_line(ablation: ModuleType, tmp_path: Path) -> None:
    ablation.asked = lambda run, config: None
    with pytest.raises(InputError, match=r"metrics.jsonl has no val/psnr at step 10$"):
        ablation.scores(tmp_path, full("run.steps=10"))
    with pytest.raises(InputError, match="data.validation of full is empty"):
        ablation.planned(ablation.parse(["--out", str(tmp_path), *ONLY, "data.validation=[]"]))


def test_mean_and_deviation_of_known_values(ablation: ModuleType) -> None:
    rows = [VALUES | {"psnr": value} for value in (20.0, 21.0, 22.0)]
    lines = ablation.table({"full": rows, "no_adl": rows[:1]}).splitlines()
    assert lines[0] == "| recipe | seeds | psnr | ssim | mid_db | hf_db | grid8 | grid16 |"
    assert lines[2].startswith("| full | 3 | 21.000 ± 1.000 | 0.500 ± 0.000 | -1.000 ± 0.000 |")
    assert lines[3].startswith("| no_adl | 1 | 20.000 | 0.500 |")


def test_runs_become_a_table_and_a_figure(
    ablation: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["--out", str(tmp_path), "--only", "full,no_adl", "--seeds", "1,3"]
    assert ablation.main(arguments) == 0
    assert len(ablation.trained) == 4
    text = (tmp_path / "ablation.md").read_text(encoding="utf-8")
    assert text == capsys.readouterr().out and "| no_adl | 2 | 22.000 ± 1.414 |" in text
    assert (tmp_path / "ablation.png").read_bytes()[:4] == b"\x89PNG"
    assert ablation.main(arguments) == 0 and len(ablation.trained) == 4  # nothing is trained again


@pytest.mark.parametrize(
    ("override", "phrase"),
    [
        ("mse_weight=2", "mse_weight 5.0 there, 2.0 here"),
        ("data.validation=['other.tar']", "data.validation"),
        ("tile_size=64", "tile_size 128 there, 64 here"),
    ],
)
def test_runs_of_other_recipes_are_refused(
    ablation: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, phrase: str
) -> None:
    finish(tmp_path / "full" / "0", full("run.seed=0"))
    assert ablation.main(["--out", str(tmp_path), *ONLY, override]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and phrase in line and line.endswith("give another --out")
    assert ablation.trained == [] and not (tmp_path / "ablation.md").exists()
    assert ablation.main(["--out", str(tmp_path), *ONLY, "run.tracker=none"]) == 0  # changes nothing that is measured


def test_differences_are_taken_seed_by_seed(ablation: ModuleType) -> None:
    """Seeds that differ by 5 dB hide nothing: one recipe is 0.5 dB above the other in each."""
    found = {
        "full": [VALUES | {"psnr": psnr} for psnr in (20.0, 25.0)],
        "other": [VALUES | {"psnr": psnr} for psnr in (20.5, 25.5)],
    }
    assert ablation.against(found).splitlines()[2].startswith("| other | 2 | 0.500 ± 0.000 | 0.000 ± 0.000 |")
