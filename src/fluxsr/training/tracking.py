"""Logs of a run: metrics.jsonl, run.log, TensorBoard or Weights & Biases, and a progress bar."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import torch

from fluxsr.errors import needed
from fluxsr.evaluation.folders import load_image
from fluxsr.progress import progress

Values = Mapping[str, float | Path]  # a path is a picture
Writer = tuple[Callable[[int, Values], None], Callable[[], None]]  # record, close


class Meter:
    """Running means of metrics since the last log line."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}  # name -> sum, count

    def add(self, measured: Mapping[str, tuple[float, float]]) -> None:
        for name, (value, count) in measured.items():
            held = self.sums.setdefault(name, [0.0, 0.0])
            held[0] += value
            held[1] += count

    def take(self) -> dict[str, float]:
        """Return the means, rounded to six digits, and reset."""
        means = {name: float(f"{value / count:.6g}") for name, (value, count) in self.sums.items() if count}
        self.sums = {}
        return means


class Journal:
    """Log files of a run. Only the main process writes them; on other processes every call is a no-op.

    Raises:
        InputError: the tracker is not installed.
    """

    def __init__(self, out: Path, tracker: str, step: int, end: int, main: bool, settings: Mapping[str, Any]):
        self.out, self.main, self.step, self.end = out, main, step, end
        self.writer = open_tracker(tracker, out, step, settings) if main else None
        self.bar = progress(disable=not main)

    def __enter__(self) -> Journal:
        if self.main:
            self.metrics = (self.out / "metrics.jsonl").open("a", encoding="utf-8")
            self.log = (self.out / "run.log").open("a", encoding="utf-8")
        self.bar.start()
        self.task = self.bar.add_task(self.out.name, total=self.end, completed=self.step)
        self.start_clock(self.step)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.bar.stop()
        self.say(f"ended: {kind.__name__} {error}".strip() if kind else f"ended at step {self.end}")
        if self.main:
            self.metrics.close()
            self.log.close()
        if self.writer:
            self.writer[1]()

    def start_clock(self, step: int) -> None:
        """Restart the step timer, so that validations and checkpoints are not counted."""
        self.clock, self.timed = time.monotonic(), step

    def seconds_per_step(self, step: int) -> float:
        seconds = (time.monotonic() - self.clock) / max(1, step - self.timed)
        self.start_clock(step)
        return round(seconds, 4)

    def moved(self, step: int, loss: float) -> None:
        self.bar.update(self.task, completed=step, description=f"{self.out.name} {loss:.4f}")

    def record(self, step: int, values: Values) -> None:
        """Write values to metrics.jsonl, run.log and the tracker, and pictures to the tracker only."""
        if not self.main:
            return
        numbers = {name: value for name, value in values.items() if not isinstance(value, Path)}
        self.metrics.write(json.dumps({"step": step, **numbers}) + "\n")
        self.metrics.flush()
        self.say(f"step {step} " + " ".join(f"{name}={value:.5g}" for name, value in numbers.items()))
        if self.writer:
            self.writer[0](step, values)

    def say(self, text: str, loud: bool = False) -> None:
        """Write a line to run.log and, if ``loud``, to stderr."""
        if self.main:
            self.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            self.log.flush()
            if loud:
                print(text, file=sys.stderr)


def open_tracker(name: str, out: Path, step: int, settings: Mapping[str, Any]) -> Writer | None:
    """Return a writer of training curves; None without a tracker. TensorBoard drops points after ``step``.

    Raises:
        InputError: Weights & Biases is not installed. (A missing TensorBoard is no error, since it is the default.)
    """
    if name == "wandb":
        needed("run.tracker: wandb", "wandb", "wandb")
        import wandb

        known = {"id": _wandb_id(out, step), "resume": "allow"}
        run = wandb.init(project="fluxsr", name=out.name, dir=str(out), config=dict(settings), **known)

        def log(step: int, values: Values) -> None:
            shown = {
                key: wandb.Image(str(value)) if isinstance(value, Path) else value for key, value in values.items()
            }
            run.log(shown, step=step)

        return log, run.finish
    if name == "none":
        return None
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        return None
    board: Any = SummaryWriter(out / "tensorboard", purge_step=step + 1)

    def record(step: int, values: Values) -> None:
        for key, value in values.items():
            if isinstance(value, Path):
                board.add_image(key, load_image(value)[0], step)
            else:
                board.add_scalar(key, value, step)
        board.flush()

    return record, board.close


def _wandb_id(out: Path, step: int) -> str:
    """Return the Weights & Biases id in the run's folder, so that a resumed run continues its curves."""
    path = out / "wandb-id.txt"
    if step and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    path.write_text(uuid4().hex[:12], encoding="utf-8")
    return path.read_text(encoding="utf-8")


def environment(processes: int, device: torch.device, trained: int) -> str:
    """Return one line with PyTorch's version, the processes and the number of trained weights."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return (
        f"torch {torch.__version__}, {processes} process{'es' * (processes > 1)} on {name}, {trained:,} trained weights"
    )
