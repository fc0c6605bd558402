"""Checkpoints that a kill cannot break: written beside their place, then renamed.

They hold whole tensors whatever the number of processes, so a run may go on with another one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.errors import InputError, is_untranslatable
from fluxsr.training.processes import like, place, whole_tree

_NAME = re.compile(r"step-(\d+)\.pt$")


def listing(folder: Path) -> list[Path]:
    """Checkpoints of a folder, oldest first."""
    found = [path for path in folder.glob("step-*.pt") if _NAME.search(path.name)]
    return sorted(found, key=lambda path: int(_NAME.search(path.name).group(1)))  # type: ignore[union-attr]


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def choose(folder: Path, resume: str) -> Path | None:
    """The checkpoint to go on from: ``latest`` of the folder, ``none``, or a file.

    Raises:
        InputError: a file that is not there.
    """
    if resume == "latest":
        return next(reversed(listing(folder)), None)
    if resume == "none":
        return None
    if not Path(resume).is_file():
        found = ", ".join(path.name for path in listing(folder)) or "none"
        raise InputError(f"no checkpoint {resume}; {folder} holds {found}; give a file, 'latest' or 'none'")
    return Path(resume)


def set_aside(folder: Path, after: int) -> None:
    """Rename checkpoints beyond a step to ``.pt.old``: the run that goes on from there is another one."""
    for path in listing(folder):
        if int(_NAME.search(path.name).group(1)) > after:  # type: ignore[union-attr]
            os.replace(path, path.with_suffix(".pt.old"))


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write step-XXXXXXXX.pt atomically, then delete all but the newest ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(folder, step)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    for old in listing(folder)[: -max(keep, 1)]:
        old.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; tensors and plain containers only (weights_only).

    Raises:
        InputError: unreadable file.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here; all mean the same to the user
        if is_untranslatable(error):
            raise
        raise InputError(f"checkpoint {path} cannot be read ({error}); delete it to use an older one") from error


def state_of(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What training moves: trained parameters, buffers and the optimizer's state. All processes must ask."""
    own = {name: whole_tree(_moved(module)) for name, module in modules.items()}
    return {"modules": own, "optimizer": whole_tree(optimizer.state_dict())}


def restore(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Read a checkpoint into modules and optimizer; the rest of it is returned.

    Raises:
        InputError: unreadable, or of another model or optimizer than the recipe's.
    """
    state = load(path)
    try:
        for name, module in modules.items():
            own = _moved(module)
            for key, value in state["modules"][name].items():
                place(own[key], value)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for index, moments in state["optimizer"]["state"].items():
            for key, value in moments.items():
                moments[key] = like(parameters[index], value) if _is_moment(value) else value
        optimizer.load_state_dict(state["optimizer"])
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        if is_untranslatable(error):
            raise
        raise unfit(path, error) from error
    return state


def unfit(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} does not fit this recipe ({error}); give another --out")


def _is_moment(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _moved(module: nn.Module) -> dict[str, Tensor]:
    """Trained parameters, and the buffers that training moves (spectral norm's)."""
    return {k: v for k, v in module.named_parameters() if v.requires_grad} | dict(module.named_buffers())
