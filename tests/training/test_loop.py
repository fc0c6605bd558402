"""The loop: resumes to the bit after any interruption, stops when asked, refuses to go on from nonsense."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import fluxsr
from fluxsr.errors import InputError
from fluxsr.training import checkpoint, loop


def records(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds_per_step"} for line in lines]


def assert_same(a: Any, b: Any) -> None:
    mine, theirs = a.weights(), b.weights()
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        assert torch.equal(value, theirs[key]), key


@pytest.fixture(scope="module")
def undisturbed(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    torch.set_num_threads(1)
    stage, out = toy.ToyStage(), tmp_path_factory.mktemp("undisturbed")
    loop.run(stage, toy.config(), out)
    return stage, out


class Power(Exception):
    """The plug is pulled."""


@pytest.mark.parametrize(("optimizer", "at"), [("adamw", 3), ("muon", 5)])
def test_resumed_run_is_the_undisturbed_one(toy: ModuleType, tmp_path: Path, optimizer: str, at: int) -> None:
    """Cut off in step ``at``, with the last checkpoint at step 3; the second stage starts from other weights."""
    config = toy.config(optimizer=optimizer)
    whole, first, second = toy.ToyStage(), toy.ToyStage(), toy.ToyStage(seed=99)
    loop.run(whole, config, tmp_path / "whole")
    losses = first.losses

    def cut(step: int, samples: Any) -> Any:
        if step == at:
            raise Power
        return losses(step, samples)

    first.losses = cut
    with pytest.raises(Power):
        loop.run(first, config, tmp_path / "cut")
    loop.run(second, config, tmp_path / "cut")
    assert second.seen == [3, 4, 5, 6, 7]
    assert_same(whole, second)
    assert records(tmp_path / "whole") == records(tmp_path / "cut")  # no step is logged twice


def test_stopped_run_goes_on_as_the_undisturbed_one(
    toy: ModuleType, tmp_path: Path, undisturbed: tuple[Any, Path]
) -> None:
    """``stop`` ends a run early and leaves the schedule as it is, so that another recipe can go on."""
    first, second = toy.ToyStage(), toy.ToyStage(seed=99)
    loop.run(first, toy.config(stop=4), tmp_path)
    assert [path.name for path in checkpoint.listing(tmp_path)][-1] == "step-00000004.pt"
    loop.run(second, toy.config(), tmp_path)
    assert second.seen == [4, 5, 6, 7]
    assert_same(undisturbed[0], second)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed(toy: ModuleType, tmp_path: Path, undisturbed: tuple[Any, Path]) -> None:
    """A real process gets SIGKILL with half a checkpoint on the disk. The next run ends as if none had been killed."""
    environment = os.environ | {"PYTHONPATH": str(Path(fluxsr.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(toy.__file__), str(tmp_path), "writing", "6"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert [path.name for path in checkpoint.listing(tmp_path)] == ["step-00000003.pt"]
    assert any(tmp_path.glob(".step-00000006.*.part"))
    assert [row["step"] for row in records(tmp_path)][-1] > 3  # logged, but about to be taken again
    stage = toy.ToyStage(seed=99)
    loop.run(stage, toy.config(), tmp_path)
    assert stage.seen[0] == 3
    assert_same(undisturbed[0], stage)
    assert records(tmp_path) == records(undisturbed[1])
    assert not any(tmp_path.glob(".*.part"))


def test_a_finished_run_only_puts_its_weights_in_place(toy: ModuleType, undisturbed: tuple[Any, Path]) -> None:
    stage = toy.ToyStage(seed=99)
    loop.run(stage, toy.config(), undisturbed[1])
    assert stage.seen == []
    assert_same(undisturbed[0], stage)


def test_a_signal_after_the_last_step_is_heard(toy: ModuleType, tmp_path: Path) -> None:
    """During the last validation, say: what comes after training is not begun, and waits for the next run."""

    def validate(step: int, _path: Path) -> dict[str, float]:
        if step == 8:
            signal.raise_signal(signal.SIGTERM)  # os.kill would end the process on Windows
        return {}

    with pytest.raises(KeyboardInterrupt):
        loop.run(toy.ToyStage(), toy.config(), tmp_path, validate)
    assert checkpoint.listing(tmp_path)[-1].name == "step-00000008.pt"
    stage = toy.ToyStage()
    loop.run(stage, toy.config(), tmp_path, validate)
    assert stage.seen == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(
    toy: ModuleType, tmp_path: Path, number: signal.Signals, undisturbed: tuple[Any, Path]
) -> None:
    stage, validated = toy.ToyStage(), []
    losses, handlers = stage.losses, [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]

    def asked(step: int, samples: Any) -> Any:
        if step == 4:
            signal.raise_signal(number)
        return losses(step, samples)

    def validate(step: int, _path: Path) -> dict[str, float]:
        validated.append(step)
        return {}

    stage.losses = asked
    with pytest.raises(KeyboardInterrupt):
        loop.run(stage, toy.config(), tmp_path, validate)
    assert checkpoint.listing(tmp_path)[-1].name == "step-00000005.pt"  # the step under way is finished
    assert validated == [3]  # whoever asks to stop does not want to wait for a validation
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    second = toy.ToyStage(seed=99)
    loop.run(second, toy.config(), tmp_path)
    assert_same(undisturbed[0], second)


def test_seed_decides(toy: ModuleType, tmp_path: Path, undisturbed: tuple[Any, Path]) -> None:
    same, other = toy.ToyStage(), toy.ToyStage(data_seed=1)
    torch.manual_seed(1234)  # randomness outside does not matter
    loop.run(same, toy.config(), tmp_path / "same")
    loop.run(other, toy.config(), tmp_path / "other")
    assert_same(undisturbed[0], same)
    assert not torch.equal(same.net[0].weight, other.net[0].weight)


def test_log_terms_are_recorded_and_not_minimised(toy: ModuleType, undisturbed: tuple[Any, Path]) -> None:
    rows = records(undisturbed[1])
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert {"square", "head", "log/size", "norm/net", "norm/head"} < rows[0].keys()
    assert rows[-1]["square"] < rows[0]["square"]


def test_frozen_part_rests(toy: ModuleType, undisturbed: tuple[Any, Path]) -> None:
    assert torch.equal(undisturbed[0].frozen.weight, torch.eye(4))
    assert undisturbed[0].frozen.weight.grad is None
    saved = checkpoint.load(checkpoint.listing(undisturbed[1])[-1])["modules"]["net"]
    assert saved and not any(key.startswith("1.") for key in saved)  # nor does it fill the checkpoints


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_nonsense_stops_the_run_and_spares_the_checkpoint(toy: ModuleType, tmp_path: Path, bad: str) -> None:
    stage = toy.ToyStage()
    losses = stage.losses

    def broken(step: int, samples: Any) -> Any:
        terms = losses(step, samples)
        if step == 5 and bad == "loss":
            terms["square"] = terms["square"] * float("nan")
        if step == 5 and bad == "gradient":  # sqrt has no slope at 0: the value is finite, the gradient is not
            terms["square"] = (0 * terms["square"]).sqrt()
        return terms

    stage.losses = broken
    before = r"square=nan" if bad == "loss" else r"net=nan"
    with pytest.raises(loop.Diverged, match=rf"{bad} is not finite at step 5 \(.*{before}.*lower run.lr"):
        loop.run(stage, toy.config(), tmp_path)
    assert checkpoint.listing(tmp_path)[-1].name == "step-00000003.pt"
    assert all(bool(torch.isfinite(value).all()) for value in stage.weights().values())


def test_an_exploding_loss_stops_the_run_at_the_last_good_checkpoint(toy: ModuleType, tmp_path: Path) -> None:
    """Measured against the running median, so that one bad batch before does not hide it."""
    stage = toy.ToyStage()
    losses = stage.losses

    def broken(step: int, samples: Any) -> Any:
        terms = losses(step, samples)
        factor = {13: 20.0, 17: 1e3}.get(step, 1.0)
        return {name: value if name.startswith("log/") else factor * value for name, value in terms.items()}

    stage.losses = broken
    said = r"loss exploded at step 17 \(square=.*head=.* times its running median, run.explode allows 100; "
    with pytest.raises(loop.Diverged, match=said + r"the last good checkpoint is .*step-00000015.pt: resume from it"):
        loop.run(stage, toy.config(steps=30), tmp_path)
    assert checkpoint.listing(tmp_path)[-1].name == "step-00000015.pt"
    assert "Diverged loss exploded" in (tmp_path / "run.log").read_text(encoding="utf-8")
    with pytest.raises(loop.Diverged, match="exploded at step 17"):  # the median is part of the checkpoint
        loop.run(stage, toy.config(steps=30), tmp_path)
    loop.run(stage, toy.config(steps=18, explode=0.0), tmp_path)


def test_micro_batches_are_the_batch(toy: ModuleType, tmp_path: Path) -> None:
    """Two of two samples make the step of four, and one step of the optimizer."""
    whole, parts = toy.ToyStage(), toy.ToyStage()
    loop.run(whole, toy.config(), tmp_path / "whole")
    loop.run(parts, toy.config(accumulate=2), tmp_path / "parts")
    assert whole.samples[0] == [0, 1, 2, 3] and parts.samples[:2] == [[0, 1], [2, 3]]
    assert parts.seen == [step for step in range(8) for _ in range(2)]
    for a, b in zip(whole.weights().values(), parts.weights().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    kept = ("step", "square", "head", "log/size", "log/large", "norm/net")
    for a, b in zip(records(tmp_path / "whole"), records(tmp_path / "parts"), strict=True):
        assert {k: b[k] for k in kept if k in b} == pytest.approx({k: a[k] for k in kept if k in a}, abs=2e-6)


def test_metrics_are_means_over_their_steps_and_survive_a_cut(toy: ModuleType, tmp_path: Path) -> None:
    """Checkpoints at every third step, lines at every fourth: a resumed run writes the line of an unbroken one."""
    cut = toy.ToyStage()
    losses = cut.losses

    def pulled(step: int, samples: Any) -> Any:
        if step == 3:
            raise Power
        return losses(step, samples)

    cut.losses = pulled
    loop.run(toy.ToyStage(), toy.config(), tmp_path / "each")
    loop.run(toy.ToyStage(), toy.config(log_every=4), tmp_path / "whole")
    with pytest.raises(Power):
        loop.run(cut, toy.config(log_every=4), tmp_path / "cut")
    loop.run(toy.ToyStage(seed=99), toy.config(log_every=4), tmp_path / "cut")
    each, whole = records(tmp_path / "each"), records(tmp_path / "whole")
    assert [row["step"] for row in whole] == [4, 8]
    for name in ("square", "norm/net"):
        assert whole[1][name] == pytest.approx(sum(row[name] for row in each[4:]) / 4, rel=1e-5)
    assert records(tmp_path / "cut") == whole


@pytest.mark.parametrize("resume, first", [("latest", 6), ("none", 0), ("step-00000003.pt", 3)])
def test_a_run_goes_on_from_where_it_is_told(
    toy: ModuleType, tmp_path: Path, resume: str, first: int, undisturbed: tuple[Any, Path]
) -> None:
    """What is beyond that point is another history: its checkpoints are set aside, its lines dropped."""
    loop.run(toy.ToyStage(), toy.config(stop=6), tmp_path)
    stage = toy.ToyStage() if resume == "none" else toy.ToyStage(seed=99)
    chosen = str(tmp_path / resume) if resume.endswith(".pt") else resume
    loop.run(stage, toy.config(resume=chosen), tmp_path)
    assert stage.seen[0] == first
    assert_same(undisturbed[0], stage)
    assert records(tmp_path) == records(undisturbed[1])
    assert (tmp_path / "step-00000006.pt.old").exists() == (first < 6)


def test_a_checkpoint_of_another_folder_starts_a_run(
    toy: ModuleType, tmp_path: Path, undisturbed: tuple[Any, Path]
) -> None:
    loop.run(toy.ToyStage(), toy.config(stop=3), tmp_path / "first")
    stage, source = toy.ToyStage(seed=99), tmp_path / "first" / "step-00000003.pt"
    loop.run(stage, toy.config(resume=str(source)), tmp_path / "second")
    assert stage.seen == [3, 4, 5, 6, 7]
    assert_same(undisturbed[0], stage)
    with pytest.raises(
        InputError, match="no checkpoint .*absent.pt; .*second holds step-00000006.pt, step-00000008.pt"
    ):
        loop.run(stage, toy.config(resume="absent.pt"), tmp_path / "second")


def test_ema_is_in_place_at_validation_and_at_the_end(toy: ModuleType, tmp_path: Path) -> None:
    stage, seen, raw, mean = toy.ToyStage(), [], [], []
    losses = stage.losses

    def watched(step: int, samples: Any) -> Any:
        raw.append(stage.net[0].weight.detach().clone())
        return losses(step, samples)

    def validate(step: int, _path: Path) -> dict[str, float]:
        seen.append(stage.net[0].weight.detach().clone())
        return {"val/score": float(step)}

    stage.losses = watched
    loop.run(stage, toy.config(steps=4, save_every=2), tmp_path, validate)
    average = raw[0].clone()
    last = checkpoint.load(checkpoint.listing(tmp_path)[-1])["modules"]["net"]["0.0.weight"]
    for step, weight in enumerate([*raw[1:], last], start=1):
        average = average + (1 - min(0.9, (1 + step) / (10 + step))) * (weight - average)
        mean.append(average)
    torch.testing.assert_close(seen, [mean[1], mean[3]])
    assert torch.equal(stage.net[0].weight, seen[1])
    assert not torch.equal(raw[2], seen[0])  # training goes on from the weights themselves
    assert records(tmp_path)[2] == {"step": 2, "val/score": 2.0}


def test_without_ema_the_weights_are_the_last(toy: ModuleType, tmp_path: Path) -> None:
    stage = toy.ToyStage()
    loop.run(stage, toy.config(ema=0.0), tmp_path)
    saved = checkpoint.load(checkpoint.listing(tmp_path)[-1])
    assert saved["average"] == [] and torch.equal(saved["modules"]["net"]["0.0.weight"], stage.net[0].weight)


def test_checkpoint_of_another_recipe_is_named(toy: ModuleType, tmp_path: Path) -> None:
    loop.run(toy.ToyStage(), toy.config(steps=2), tmp_path)
    other = toy.ToyStage()
    other.modules["net"] = nn.Linear(3, 3)
    with pytest.raises(InputError, match="does not fit this recipe .*choose another --out"):
        loop.run(other, toy.config(steps=4), tmp_path)
    with pytest.raises(InputError, match="does not fit this recipe"):
        loop.run(toy.ToyStage(), toy.config(steps=4, ema=0.0), tmp_path)


def test_clipping_is_per_part(toy: ModuleType, tmp_path: Path) -> None:
    """A huge gradient of one part does not still the other."""
    stage, twin = toy.ToyStage(), toy.ToyStage()
    losses = stage.losses
    stage.losses = lambda step, s: {k: v * (1e6 if k == "head" else 1) for k, v in losses(step, s).items()}
    for one, name in ((stage, "a"), (twin, "b")):
        loop.run(one, toy.config(steps=1, ema=0.0), tmp_path / name)
    assert torch.equal(stage.net[0].weight, twin.net[0].weight)
