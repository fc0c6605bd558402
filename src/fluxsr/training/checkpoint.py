"""Checkpoints that a kill cannot break: written beside their place, then renamed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch

from fluxsr.errors import InputError

_NAME = re.compile(r"step-(\d+)\.pt$")


def listing(folder: Path) -> list[Path]:
    """Checkpoints of a folder, oldest first."""
    found = [path for path in folder.glob("step-*.pt") if _NAME.search(path.name)]
    return sorted(found, key=lambda path: int(_NAME.search(path.name).group(1)))  # type: ignore[union-attr]


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write step-XXXXXXXX.pt atomically, then delete all but the newest ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
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
        raise InputError(f"checkpoint {path} cannot be read ({error}); delete it to use an older one") from error
