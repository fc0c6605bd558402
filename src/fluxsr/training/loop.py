"""The training loop, shared by all stages, for one process or many.

A stage declares its trained modules and returns named losses. The loop sums the losses, steps the optimizer, logs,
writes checkpoints and resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fluxsr import recipe as recipes
from fluxsr.errors import InputError, is_untranslatable
from fluxsr.training import average, checkpoint, run_folder
from fluxsr.training.config import RunConfig
from fluxsr.training.divergence import Diverged, Watch
from fluxsr.training.optimizer import build_optimizer, schedule, trained_parameters
from fluxsr.training.processes import Processes, gathered, like, whole, whole_tree
from fluxsr.training.stopping import stop_flag
from fluxsr.training.tracking import Journal, Meter, environment

__all__ = ["Diverged", "Stage", "run"]


class Stage(Protocol):
    """Interface between a stage and the loop.

    Attributes:
        modules: modules by name; together they hold every trained parameter (``requires_grad``).
    """

    modules: dict[str, nn.Module]

    def losses(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        """Return the weighted losses of some samples of a step, each a scalar mean; the loop minimises their sum.

        A step has ``run.batch`` samples, 0 to batch - 1, which are divided among processes and micro-batches. All
        random draws of a sample are keyed by (seed, step, sample), so the division does not matter. The set of terms
        may depend on the step only.

        Terms whose names begin with ``log/`` are logged but not minimised. They may be vectors with one value per
        sample, even empty ones: the log shows the mean over all values.
        """
        ...


@dataclass
class _Run:
    """State of a run."""

    stage: Stage
    config: RunConfig
    out: Path
    processes: Processes
    model: nn.Module
    optimizer: torch.optim.Optimizer
    shares: list[list[int]]
    step: int = 0
    average: list[Tensor] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)
    targets: str = ""

    def __post_init__(self) -> None:
        self.groups = trained_parameters(self.stage.modules)
        self.parameters = [p for params in self.groups.values() for p in params]
        self.watch = Watch(self.config.explode)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]


def run(
    stage: Stage,
    config: RunConfig,
    out: Path,
    on_checkpoint: Callable[[int, Path], Mapping[str, float | Path]] | None = None,
    recipe: Any = None,
    counts: Callable[[int], dict[str, float]] = lambda step: {},
    targets: str = "",
) -> None:
    """Train a stage up to ``config.steps``, resuming from the checkpoint that ``config.resume`` names, if any.

    An interrupt (Ctrl-C, SIGTERM) saves a checkpoint before the run ends. With EMA, the averaged weights are in place
    when ``on_checkpoint`` is called and when this function returns.

    Args:
        stage: the stage to train.
        config: options of the loop.
        out: folder of the run.
        on_checkpoint: called on the main process after every checkpoint with the step and the checkpoint's path;
            returns scores and pictures (paths) for the log.
        recipe: the stage's complete configuration. It is written into ``out`` and compared when a run is resumed.
        counts: returns further values for the log line of a step.
        targets: name of the set of training targets. If another one was used before a run is resumed, the log says so.

    Raises:
        Diverged: the loss or its gradient is not finite, or the loss exploded; the last checkpoint is kept.
        KeyboardInterrupt: the run was interrupted; a checkpoint was written.
        InputError: a batch that cannot be divided, a checkpoint of another recipe, or an unknown score in ``run.best``.
    """
    run_folder.check_score(config.best)
    out.mkdir(parents=True, exist_ok=True)
    state = _begin(stage, config, out)
    state.targets = targets
    notes, end = _resume(state, recipe), config.stop or config.steps
    settings = recipes.flatten(recipe if recipe is not None else config)
    main = state.processes.main
    with stop_flag() as stop, Journal(out, config.tracker, state.step, end, main, settings) as journal:
        for note in notes:
            journal.say(note, loud=note.startswith("resuming with"))
        while state.step < end:
            loss, asked = _step(state, stop)
            journal.moved(state.step, loss)
            if state.step % config.log_every == 0 or state.step == end:
                timed = {"seconds_per_step": journal.seconds_per_step(state.step)}
                journal.record(state.step, timed | counts(state.step) | state.meter.take())
            if state.step % config.save_every == 0 or state.step == end or asked:
                path = _save(state)
                journal.say(f"saved {path}")
                if asked:
                    raise KeyboardInterrupt
                if on_checkpoint:
                    _validate(state, on_checkpoint, path, journal)
                journal.start_clock(state.step)
        if state.processes.any(stop.is_set()):  # interrupted after the last step, whose checkpoint is already written
            raise KeyboardInterrupt
    average.put(state.average, state.parameters)


def _begin(stage: Stage, config: RunConfig, out: Path) -> _Run:
    processes = Processes(config.device)
    if processes.sharded and config.optimizer == "adamw8bit":
        raise InputError("run.optimizer is adamw8bit, which FSDP cannot shard; use adamw")
    shares = processes.shares(config.batch, config.accumulate)
    optimizer = build_optimizer(trained_parameters(stage.modules), config)
    model = processes.prepare(stage, optimizer)
    state = _Run(stage, config, out, processes, model, optimizer, shares)
    state.average = [p.detach().clone() for p in state.parameters] if config.ema else []
    return state


def _step(state: _Run, stop: Event) -> tuple[float, bool]:
    """Run one optimizer step. Return the loss over all processes, and whether any process was asked to stop."""
    config = state.config
    rate = schedule(state.step, config)
    for group, peak in zip(state.optimizer.param_groups, state.peaks, strict=True):
        group["lr"] = peak * rate
    state.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for index, samples in enumerate(state.shares):
        with state.processes.sharing(state.model, last=index == len(state.shares) - 1):
            with torch.autocast(state.parameters[0].device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                losses = state.model(state.step, samples)
            terms = [value for name, value in losses.items() if not name.startswith("log/")]
            (torch.stack(terms).sum() / len(state.shares)).backward()
        for name, value in losses.items():
            held = torch.stack([value.detach().float().sum(), value.new_tensor(value.numel(), dtype=torch.float32)])
            sums[name] = sums[name] + held if name in sums else held
    measured, asked = _over_processes(state.processes, sums, stop.is_set())
    loss = state.watch.loss(state.step, measured)
    norms = {name: nn.utils.clip_grad_norm_(params, config.clip) for name, params in state.groups.items()}
    state.watch.norms(state.step, {name: float(whole(norm)) for name, norm in norms.items()})
    state.optimizer.step()
    state.step += 1
    average.update(state.average, state.parameters, config.ema, state.step)
    state.meter.add(measured)
    state.meter.add({f"norm/{name}": (float(whole(norm)), 1.0) for name, norm in norms.items()})
    state.meter.add({"schedule": (rate, 1.0)})
    return loss, asked


def _over_processes(
    processes: Processes, sums: Mapping[str, Tensor], stop: bool
) -> tuple[dict[str, tuple[float, float]], bool]:
    """Reduce sums and counts of every term, and the stop flag, over all processes in one message."""
    first = next(iter(sums.values()))
    rows = torch.stack([*sums.values(), first.new_tensor([float(stop), 1.0])])
    *values, flag = processes.total(rows).tolist()
    measured = {name: (value, count) for name, (value, count) in zip(sums, values, strict=True)}
    return measured, flag[0] > 0


def _save(state: _Run) -> Path:
    """Write a checkpoint on the main process; the others wait for it."""
    held = checkpoint.state_of(state.stage.modules, state.optimizer)
    held |= {"step": state.step, "average": whole_tree(state.average), "targets": state.targets}
    held |= {"recent": state.watch.recent, "meter": state.meter.sums}
    path = checkpoint.path_of(state.out, state.step)
    if state.processes.main:
        best = run_folder.best_score(state.out, state.config.best)
        checkpoint.save(state.out, state.step, held, state.config.keep, best.step if best else None)
    state.processes.wait()
    state.watch.last = str(path)
    return path


def _resume(state: _Run, recipe: Any) -> list[str]:
    """Load the chosen checkpoint and update the run's folder. Return lines for the log."""
    count = sum(p.numel() for p in state.parameters)
    notes = [environment(state.processes.count, state.parameters[0].device, count)]
    source = checkpoint.choose(state.out, state.config.resume)
    if source:
        notes += [note for note in [run_folder.changes(source.parent, recipe)] if note]
        held = checkpoint.restore(source, state.stage.modules, state.optimizer)
        try:
            for mean, value in zip(state.average, held["average"], strict=True):
                mean.copy_(like(mean, value))
        except (RuntimeError, ValueError) as error:  # only one of the two recipes uses EMA
            if is_untranslatable(error):
                raise
            raise checkpoint.unfit(source, error) from error
        state.step, state.watch.last = int(held["step"]), str(source)
        state.watch.recent, state.meter.sums = held["recent"], held["meter"]
        if (before := held["targets"]) != state.targets:
            notes.append(f"resuming with other targets ({before} there, {state.targets} here), so their order changes")
        notes.append(f"resuming from {source}")
    state.processes.wait()  # until all processes have read the checkpoint
    if state.processes.main:
        checkpoint.set_aside(state.out, state.step)
        run_folder.write_recipe(state.out, recipe)
        run_folder.forget_after(state.step, state.out / "metrics.jsonl")
    return notes


def _validate(
    state: _Run, on_checkpoint: Callable[[int, Path], Mapping[str, float | Path]], path: Path, journal: Journal
) -> None:
    with average.in_place(state.average, state.parameters), gathered(state.model):
        if state.processes.main:
            journal.record(state.step, on_checkpoint(state.step, path))
            if best := run_folder.best_score(state.out, state.config.best):
                journal.say(f"best so far: step {best.step}, {best.name}={best.value:.5g}")
        state.processes.wait()
