"""The loop around every stage: accumulate nothing, know no loss, lose no work.

A stage says what it trains and returns named losses; the loop sums, steps, logs, checkpoints and resumes.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from fluxsr.errors import FluxSRError, InputError
from fluxsr.training import checkpoint
from fluxsr.training.config import RunConfig
from fluxsr.training.dataset import keyed_generator


class Stage(Protocol):
    """What the loop must know of a stage."""

    modules: dict[str, nn.Module]  # holds every trained parameter (requires_grad) under a name

    # A module whose name ends with "critic" plays against the others; AdamW trains it whatever the optimizer.

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Weighted scalar losses of one step; the loop minimises their sum.

        Names that begin with ``log/`` are written to the metrics and left out of the sum.
        """
        ...


class Diverged(FluxSRError):
    """The loss or its gradient became infinite or not a number."""


def run(
    stage: Stage,
    config: RunConfig,
    out: Path,
    on_checkpoint: Callable[[int, Path], dict[str, float]] | None = None,
) -> None:
    """Train a stage to ``config.steps``; continue from the newest checkpoint in ``out`` if there is one.

    Interrupting (Ctrl-C, SIGTERM) saves a checkpoint first. With EMA the averaged weights are in place
    whenever ``on_checkpoint`` is called and when this returns.

    Raises:
        Diverged: the loss or its gradient is not finite; the last checkpoint is left as it was.
        KeyboardInterrupt: after the checkpoint was written.
    """
    out.mkdir(parents=True, exist_ok=True)
    groups = {name: [p for p in m.parameters() if p.requires_grad] for name, m in stage.modules.items()}
    groups = {name: params for name, params in groups.items() if params}
    optimizer = build_optimizer(groups, config)
    peaks = [group["lr"] for group in optimizer.param_groups]
    average = [p.detach().clone() for params in groups.values() for p in params] if config.ema else []
    step, end = _restore(stage, optimizer, average, out), config.stop or config.steps
    _forget_after(step, out / "metrics.jsonl")
    parameters = [p for params in groups.values() for p in params]
    with _stop_flag() as stop, progress() as bar, (out / "metrics.jsonl").open("a", encoding="utf-8") as log:
        task = bar.add_task(out.name, total=end, completed=step)
        clock, timed = time.monotonic(), step
        while step < end:
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * schedule(step, config)
            with torch.autocast(parameters[0].device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                losses = stage.losses(step, keyed_generator(config.seed, 1, step))
            total = torch.stack([value for name, value in losses.items() if not name.startswith("log/")]).sum()
            if not torch.isfinite(total):
                bad = ", ".join(f"{name}={value.item():.3g}" for name, value in losses.items())
                raise Diverged(f"loss is not finite at step {step} ({bad}); resume from {out} with a lower run.lr")
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            norms = {name: nn.utils.clip_grad_norm_(params, config.clip) for name, params in groups.items()}
            if not all(torch.isfinite(norm) for norm in norms.values()):  # a checkpoint must never hold such weights
                bad = ", ".join(f"{name}={norm.item():.3g}" for name, norm in norms.items())
                raise Diverged(f"gradient is not finite at step {step} ({bad}); resume from {out} with a lower run.lr")
            optimizer.step()
            step += 1
            _average(average, parameters, config.ema, step)
            bar.update(task, completed=step, description=f"{out.name} {total.item():.4f}")
            if step % config.log_every == 0 or step == end:
                record: dict[str, Any] = {name: round(value.item(), 6) for name, value in losses.items()}
                record |= {f"norm/{name}": round(float(norm), 5) for name, norm in norms.items()}
                seconds = (time.monotonic() - clock) / (step - timed)
                clock, timed = time.monotonic(), step
                log.write(json.dumps({"step": step, "seconds_per_step": round(seconds, 4), **record}) + "\n")
                log.flush()
            if step % config.save_every == 0 or step == end or stop.is_set():
                path = checkpoint.save(out, step, _state(stage, optimizer, average, step), config.keep)
                if on_checkpoint and not stop.is_set():
                    with _averaged(average, parameters):
                        scores = on_checkpoint(step, path)
                    log.write(json.dumps({"step": step, **scores}) + "\n")
                    log.flush()
                    clock, timed = time.monotonic(), step
                if stop.is_set():
                    raise KeyboardInterrupt
    for parameter, mean in zip(parameters, average, strict=False):
        parameter.data.copy_(mean)


def build_optimizer(groups: dict[str, list[nn.Parameter]], config: RunConfig) -> torch.optim.Optimizer:
    """AdamW, or Muon (https://kellerjordan.github.io/posts/muon/) for matrices and kernels with AdamW for the rest.

    Muon orthogonalises each update. It trains the autoencoder several times faster than AdamW
    (benchmarks/autoencoder.py).
    """
    parameters = [p for params in groups.values() for p in params]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.99))
    try:
        from pytorch_optimizer import Muon
    except ImportError as error:
        raise InputError("run.optimizer is muon; install it with `pip install 'fluxsr[train]'`") from error

    matrices = [p for name, params in groups.items() for p in params if p.ndim >= 2 and not name.endswith("critic")]
    rest = [p for name, params in groups.items() for p in params if p.ndim < 2 or name.endswith("critic")]
    shared = {"weight_decay": config.weight_decay}
    return Muon(
        [{"params": matrices, "lr": config.muon_lr, "use_muon": True, **shared}]
        + ([{"params": rest, "lr": config.lr, "use_muon": False, "betas": (0.9, 0.99), **shared}] if rest else [])
    )


def schedule(step: int, config: RunConfig) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine down to ``lr_floor``."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr_floor + (1 - config.lr_floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _state(stage: Stage, optimizer: torch.optim.Optimizer, average: list[Tensor], step: int) -> dict[str, Any]:
    trained = {name: _trained(module) for name, module in stage.modules.items()}
    return {"step": step, "modules": trained, "optimizer": optimizer.state_dict(), "average": average}


def _trained(module: nn.Module) -> dict[str, Tensor]:
    """Trained parameters, and the buffers that training moves (spectral norm's)."""
    return {k: v for k, v in module.named_parameters() if v.requires_grad} | dict(module.named_buffers())


def _restore(stage: Stage, optimizer: torch.optim.Optimizer, average: list[Tensor], out: Path) -> int:
    found = checkpoint.listing(out)
    if not found:
        return 0
    state = checkpoint.load(found[-1])
    try:
        for name, module in stage.modules.items():
            own = _trained(module)
            for key, value in state["modules"][name].items():
                own[key].data.copy_(value)
        optimizer.load_state_dict(state["optimizer"])
        for mean, value in zip(average, state["average"], strict=True):
            mean.copy_(value)
    except (KeyError, RuntimeError, ValueError) as error:  # another model, optimizer or EMA than the recipe's
        raise InputError(f"{found[-1]} does not fit this recipe ({error}); give another --out") from error
    return int(state["step"])


def _forget_after(step: int, metrics: Path) -> None:
    """Drop what a killed run logged after its last checkpoint: those steps are about to be taken again."""
    if not metrics.is_file():
        return
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if len(kept) < len(lines):
        partial = metrics.with_suffix(".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        os.replace(partial, metrics)


@torch.no_grad()
def _average(average: list[Tensor], parameters: list[nn.Parameter], decay: float, step: int) -> None:
    """Exponential mean; the decay starts low, so that the first steps are forgotten."""
    rate = 1 - min(decay, (1 + step) / (10 + step))
    for mean, parameter in zip(average, parameters, strict=False):
        mean.lerp_(parameter, rate)


@contextmanager
def _averaged(average: list[Tensor], parameters: list[nn.Parameter]) -> Iterator[None]:
    held = [p.detach().clone() for p in parameters] if average else []
    for parameter, mean in zip(parameters, average, strict=False):
        parameter.data.copy_(mean)
    try:
        yield
    finally:
        for parameter, value in zip(parameters, held, strict=False):
            parameter.data.copy_(value)


@contextmanager
def _stop_flag() -> Iterator[threading.Event]:
    """Set by the first SIGINT or SIGTERM; a second one acts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    held: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: Any) -> None:
        stop.set()
        signal.signal(number, held[number])

    for number in held:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)


def progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )
