"""A run remembers its recipe, and says what a resumed one changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from fluxsr import recipe
from fluxsr.errors import InputError, OutputError
from fluxsr.training import loop, run_folder
from fluxsr.training.config import FREE, KEPT, STAGES, DistillConfig, RunConfig

BEFORE = DistillConfig(rank=8, targets=["attn.to_q"], adl_weight=0.002, run=RunConfig(steps=10, lr=1e-5))


def test_the_resolved_recipe_can_be_run_again(tmp_path: Path) -> None:
    run_folder.write_recipe(tmp_path, BEFORE)
    assert recipe.read(tmp_path / "recipe.yaml")["stage"] == "distill"
    assert recipe.load(DistillConfig, tmp_path / "recipe.yaml") == BEFORE
    assert not any(tmp_path.glob(".*.part"))


def test_what_differs_stands_in_one_line(tmp_path: Path) -> None:
    run_folder.write_recipe(tmp_path, BEFORE)
    assert run_folder.changes(tmp_path, BEFORE) == ""
    free = replace(BEFORE, run=replace(BEFORE.run, tracker="none", resume="none", accumulate=2, stop=3), name="x")
    assert run_folder.changes(tmp_path, free) == ""
    other = replace(BEFORE, adl_weight=0.01, run=replace(BEFORE.run, batch=4))
    line = run_folder.changes(tmp_path, other)
    assert line == "resuming with another recipe: run.batch 8 there, 4 here, adl_weight 0.002 there, 0.01 here"


def test_what_the_weights_hang_on_is_refused(tmp_path: Path) -> None:
    run_folder.write_recipe(tmp_path, BEFORE)
    other = replace(BEFORE, rank=4, adl_weight=0.01, targets=["attn.to_k"])
    with pytest.raises(
        InputError, match=r"another recipe \(rank 8 there, 4 here, targets \['attn.to_q'\] there"
    ) as found:
        run_folder.changes(tmp_path, other)
    assert "adl_weight" not in str(found.value) and "choose another --out" in str(found.value)


def test_an_option_that_is_new_had_its_default(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("stage: distill\nrank: 8\n", encoding="utf-8")
    assert run_folder.changes(tmp_path, DistillConfig(rank=8)) == ""
    assert run_folder.changes(tmp_path, DistillConfig(rank=8, mse_weight=2.0)).endswith(
        "mse_weight 1.0 there, 2.0 here"
    )
    assert run_folder.changes(tmp_path / "elsewhere", DistillConfig()) == ""


def test_names_of_kept_and_free_options_exist() -> None:
    known = set().union(*(recipe.flatten(schema()) for schema in STAGES.values()))
    assert known >= KEPT and known >= FREE and not KEPT & FREE


def test_a_resumed_run_tells_that_its_targets_are_others(
    toy: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stop, targets, told in ((2, "5 targets, a", False), (3, "5 targets, a", False), (4, "4 targets, b", True)):
        loop.run(toy.ToyStage(), toy.config(stop=stop), tmp_path, targets=targets)
        line = "resuming with other targets (5 targets, a there, 4 targets, b here), so their order changes"
        assert (line in capsys.readouterr().err) == told
    assert line in (tmp_path / "run.log").read_text(encoding="utf-8")


def test_the_loop_compares_only_when_it_goes_on(
    toy: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop.run(toy.ToyStage(), toy.config(stop=3), tmp_path, recipe=BEFORE)
    loop.run(toy.ToyStage(), toy.config(stop=4), tmp_path, recipe=replace(BEFORE, mse_weight=3.0))
    line = "resuming with another recipe: mse_weight 1.0 there, 3.0 here"
    assert line in capsys.readouterr().err and line in (tmp_path / "run.log").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="t_l 0.25 there, 0.5 here"):
        loop.run(toy.ToyStage(), toy.config(), tmp_path, recipe=replace(BEFORE, t_l=0.5))
    assert recipe.load(DistillConfig, tmp_path / "recipe.yaml").mse_weight == 3.0
    loop.run(toy.ToyStage(), toy.config(stop=1, resume="none"), tmp_path, recipe=replace(BEFORE, t_l=0.5))
    assert recipe.load(DistillConfig, tmp_path / "recipe.yaml").t_l == 0.5


def test_results_replace_nothing_that_no_run_of_the_folder_made(tmp_path: Path) -> None:
    run_folder.check_free(tmp_path, "model")
    (tmp_path / "model").mkdir()
    with pytest.raises(OutputError, match="model already exists and was not written by a training run; move it away"):
        run_folder.check_free(tmp_path, "model")
    run_folder.write_recipe(tmp_path, BEFORE)
    run_folder.check_free(tmp_path, "model")


def test_the_best_score_is_the_lowest_lpips_or_the_highest_psnr(tmp_path: Path) -> None:
    assert run_folder.best_score(tmp_path) is None
    rows = [{"step": 1, "loss": 9.0}, {"step": 2, "val/psnr": 20.0, "val/a/lpips": 0.3}]
    rows += [{"step": 3, "val/psnr": 21.0, "val/a/lpips": 0.4}, {"step": 4, "val/psnr": float("nan")}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert run_folder.best_score(tmp_path) == (2, "val/a/lpips", 0.3)
    assert run_folder.best_score(tmp_path, "val/psnr") == (3, "val/psnr", 21.0)
