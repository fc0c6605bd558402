"""Atomic checkpoints: each is written to a temporary file and then renamed.

A checkpoint holds unsharded tensors, so a run can be resumed with another number of processes.
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
from fluxsr.imaging.atomic import remove_orphans, replaced
from fluxsr.training import run_folder
from fluxsr.training.processes import like, place, whole_tree

_NAME = re.compile(r"step-(\d+)\.pt$")


def listing(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    found = [path for path in folder.glob("step-*.pt") if _NAME.search(path.name)]
    return sorted(found, key=lambda path: int(_NAME.search(path.name).group(1)))  # type: ignore[union-attr]


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def choose(folder: Path, resume: str) -> Path | None:
    """Return the checkpoint to resume from: the folder's ``latest``, ``none``, or a file.

    Raises:
        InputError: the file does not exist.
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
    """Rename checkpoints after a step to ``.pt.old``, because a run resumed at that step replaces them."""
    for path in listing(folder):
        if int(_NAME.search(path.name).group(1)) > after:  # type: ignore[union-attr]
            os.replace(path, path.with_suffix(".pt.old"))


def save(folder: Path, step: int, state: dict[str, Any], keep: int, best: int | None = None) -> Path:
    """Write step-XXXXXXXX.pt atomically, then delete all but the newest ``keep`` and that of step ``best``."""
    path = path_of(folder, step)
    with replaced(path) as file:
        torch.save(state, file)
    remove_orphans([folder])  # of killed runs
    for old in listing(folder)[: -max(keep, 1)]:
        if best is None or old != path_of(folder, best):
            old.unlink()
    return path


def best(folder: Path, name: str = "") -> Path:
    """Return a run's best checkpoint by the validation score ``name``; the newest, if none was scored.

    Raises:
        InputError: the folder has no checkpoint, or the best one is gone.
    """
    found = listing(folder)
    if not found:
        raise InputError(f"no checkpoint in {folder}; give a step-*.pt file, or the folder of a run")
    score = run_folder.best_score(folder, name)
    scored = path_of(folder, score.step) if score else found[-1]
    if scored not in found:
        raise InputError(f"the best checkpoint of {folder}, {scored.name}, is gone; give the file of another one")
    return scored


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, which may hold only tensors and plain containers (``weights_only``).

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here, and all of them mean a damaged file
        if is_untranslatable(error):
            raise
        raise InputError(f"checkpoint {path} cannot be read ({error}); delete it to use an older one") from error


def state_of(modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return all training state: trained parameters and optimizer state. Every process must call this."""
    own = {name: whole_tree(_trained(module)) for name, module in modules.items()}
    return {"modules": own, "optimizer": whole_tree(optimizer.state_dict())}


def restore(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load a checkpoint into modules and optimizer, and return its content.

    Raises:
        InputError: the file cannot be read, or belongs to another model or optimizer than the recipe's.
    """
    state = load(path)
    restore_modules(path, state, modules)
    try:
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


def restore_modules(path: Path, state: Mapping[str, Any], modules: Mapping[str, nn.Module]) -> None:
    """Copy the trained parameters of a checkpoint's content into modules.

    Raises:
        InputError: the checkpoint belongs to another model than the recipe's.
    """
    try:
        for name, module in modules.items():
            own = _trained(module)
            for key, value in state["modules"][name].items():
                place(own[key], value)
    except (KeyError, RuntimeError, ValueError) as error:
        if is_untranslatable(error):
            raise
        raise unfit(path, error) from error


def unfit(path: Path, error: Exception) -> InputError:
    """Return the error for a checkpoint that does not match the recipe."""
    return InputError(f"{path} does not fit this recipe ({error}); choose another --out")


def _is_moment(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _trained(module: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in module.named_parameters() if v.requires_grad}
