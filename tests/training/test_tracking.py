"""What a run says of itself."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.training import loop
from fluxsr.training.tracking import Journal, Meter, open_tracker


def test_means_are_over_samples_not_over_lines() -> None:
    meter = Meter()
    meter.add({"loss": (6.0, 3.0), "rare": (0.0, 0.0)})
    meter.add({"loss": (2.0, 1.0), "rare": (5.0, 1.0), "empty": (0.0, 0.0)})
    assert meter.take() == {"loss": 2.0, "rare": 5.0}
    assert meter.take() == {}


def test_tensorboard_shows_the_metrics(toy: ModuleType, tmp_path: Path) -> None:
    """After a cut the curve has every step once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loop.run(toy.ToyStage(), toy.config(stop=5, save_every=5, tracker="tensorboard"), tmp_path)
    loop.run(toy.ToyStage(), toy.config(tracker="tensorboard"), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("square")] == list(range(1, 9))


def test_without_tensorboard_the_files_are_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert open_tracker("tensorboard", tmp_path, 0, {}) is None


def test_without_wandb_it_is_named(uninstall: Callable[..., None], tmp_path: Path) -> None:
    uninstall("wandb")
    with pytest.raises(InputError, match=r'run.tracker: wandb needs wandb; pip install "fluxsr\[wandb\]"'):
        open_tracker("wandb", tmp_path, 0, {})


def test_wandb_gets_records_and_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    run = SimpleNamespace(log=lambda values, step: seen.append((step, values)), finish=lambda: seen.append("finished"))
    wandb = SimpleNamespace(__spec__="found", init=lambda **options: seen.append(options) or run, Image=len)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with Journal(tmp_path, "wandb", 0, 5, True, {"rank": 4}) as journal:
        journal.record(3, {"loss": 1.0, "images": Path("abc.png")})
    assert seen[0]["config"] == {"rank": 4} and seen[1:] == [(3, {"loss": 1.0, "images": 7}), "finished"]
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8") == '{"step": 3, "loss": 1.0}\n'


def test_tensorboard_shows_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "a.png")
    with Journal(tmp_path, "tensorboard", 0, 5, True, {}) as journal:
        journal.record(3, {"val/images": tmp_path / "a.png"})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (picture,) = events.Images("val/images")
    assert (picture.step, picture.width, picture.height) == (3, 20, 10)


def test_a_run_that_goes_on_is_the_same_to_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    run = SimpleNamespace(log=None, finish=None)
    wandb = SimpleNamespace(__spec__="found", init=lambda **options: seen.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for step in (0, 5, 0, 2):  # begun, gone on, begun anew, gone on
        open_tracker("wandb", tmp_path, step, {})
    first, again, anew, after = (options["id"] for options in seen)
    assert first == again != anew == after
    assert all(options["resume"] == "allow" for options in seen)


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    with Journal(tmp_path, "tensorboard", 0, 5, False, {}) as journal:
        journal.record(1, {"loss": 1.0})
        journal.say("nothing")
    assert list(tmp_path.iterdir()) == []


def test_the_log_says_where_it_ran_and_how_it_ended(tmp_path: Path, toy: ModuleType) -> None:
    loop.run(toy.ToyStage(), toy.config(), tmp_path)
    lines = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert "1 process on cpu" in lines[0] and lines[-1].endswith("ended at step 8")
    assert any("saved" in line and "step-00000003.pt" in line for line in lines)
