"""What a run's folder says of its past: the recipe that made it, and a log without the steps that were lost."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from fluxsr import recipe as recipes
from fluxsr.errors import InputError, OutputError
from fluxsr.training.config import FREE, KEPT, STAGES

RECIPE = "recipe.yaml"


def differences(folder: Path, recipe: Any, free: Collection[str] = FREE) -> dict[str, str]:
    """What a recipe has other than the folder's, but for free options: a phrase each, by name."""
    path = folder / RECIPE
    if recipe is None or not path.is_file():
        return {}
    saved = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    now = recipes.flatten(recipe)
    before = recipes.flatten(type(recipe)()) | recipes.flatten(saved)  # an option that is new had its default
    other = [key for key in now if key not in free and before.get(key) != now[key]]
    return {key: f"{key} {before.get(key)!r} there, {now[key]!r} here" for key in other}


def check_free(folder: Path, *names: str) -> None:
    """Make sure that a run's results can be written without replacing files that no run of this folder made.

    Args:
        folder: of the run.
        names: of its results there.

    Raises:
        OutputError: one is there, and no recipe is beside it.
    """
    found = [name for name in names if (folder / name).exists()]
    if found and not (folder / RECIPE).is_file():
        raise OutputError(f"{folder / found[0]} is there already and is of no run; move it away, or give another --out")


def changes(folder: Path, recipe: Any) -> str:
    """One line of what a recipe changes against the folder's, where it matters; empty if nothing.

    Raises:
        InputError: an option that a run must keep has another value.
    """
    other = differences(folder, recipe)
    refused = [phrase for key, phrase in other.items() if key in KEPT]
    if refused:
        raise InputError(f"{folder} was begun by another recipe ({', '.join(refused)}); give another --out")
    return f"going on with another recipe: {', '.join(other.values())}" if other else ""


def write_recipe(folder: Path, recipe: Any) -> None:
    """The resolved recipe, under the name that ``changes`` reads."""
    stage = next((name for name, kind in STAGES.items() if isinstance(recipe, kind)), "")
    if recipe is not None:
        recipes.save(recipe, folder / RECIPE, stage)


def forget_after(step: int, metrics: Path) -> None:
    """Drop what a killed run logged after its last checkpoint: those steps are about to be taken again."""
    if not metrics.is_file():
        return
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if len(kept) < len(lines):
        partial = metrics.with_suffix(".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        os.replace(partial, metrics)
