"""Files of a run's folder that make it resumable: its recipe, and its log."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fluxsr import recipe as recipes
from fluxsr.errors import InputError, OutputError
from fluxsr.imaging.atomic import write_text
from fluxsr.training.config import FREE, KEPT, STAGES

RECIPE = "recipe.yaml"


def differences(folder: Path, recipe: Any, free: Collection[str] = FREE) -> dict[str, str]:
    """Return the options, except free ones, in which a recipe differs from the folder's, each with a phrase."""
    path = folder / RECIPE
    if recipe is None or not path.is_file():
        return {}
    saved = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    now = recipes.flatten(recipe)
    before = recipes.flatten(type(recipe)()) | recipes.flatten(saved)  # options that are new had their defaults
    other = [key for key in now if key not in free and before.get(key) != now[key]]
    return {key: f"{key} {before.get(key)!r} there, {now[key]!r} here" for key in other}


def check_free(folder: Path, *names: str) -> None:
    """Check that a run's results do not replace files that were not written by a run in this folder.

    Args:
        folder: folder of the run.
        names: names of its results.

    Raises:
        OutputError: a result exists, but the folder has no recipe.
    """
    found = [name for name in names if (folder / name).exists()]
    if found and not (folder / RECIPE).is_file():
        raise OutputError(
            f"{folder / found[0]} already exists and was not written by a training run; move it away, or choose "
            "another --out"
        )


def changes(folder: Path, recipe: Any) -> str:
    """Return one line with the relevant differences between a recipe and the folder's; empty if there are none.

    Raises:
        InputError: an option in ``KEPT`` differs.
    """
    other = differences(folder, recipe)
    refused = [phrase for key, phrase in other.items() if key in KEPT]
    if refused:
        raise InputError(f"{folder} was begun by another recipe ({', '.join(refused)}); choose another --out")
    return f"resuming with another recipe: {', '.join(other.values())}" if other else ""


def write_recipe(folder: Path, recipe: Any) -> None:
    """Write the resolved recipe into the folder, where ``changes`` reads it."""
    stage = next((name for name, kind in STAGES.items() if isinstance(recipe, kind)), "")
    if recipe is not None:
        recipes.save(recipe, folder / RECIPE, stage)


def forget_after(step: int, metrics: Path) -> None:
    """Remove log lines after a step. A killed run wrote them after its last checkpoint and will repeat these steps."""
    if not metrics.is_file():
        return
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if len(kept) < len(lines):
        write_text("".join(kept), metrics)


class Score(NamedTuple):
    """The best validation score of a run."""

    step: int
    name: str
    value: float


def check_score(name: str) -> None:
    """Check that a score can decide which checkpoint is best.

    Raises:
        InputError: it is not known whether a higher or a lower value is better.
    """
    if name and not name.endswith(("lpips", "psnr", "ssim")):
        raise InputError(f"run.best is {name}; give a score that ends in lpips, psnr or ssim, such as val/psnr")


def best_score(folder: Path, name: str = "") -> Score | None:
    """Return the best validation score in a run's log; None if it has none.

    Args:
        folder: folder of the run.
        name: the score that decides; empty for the first LPIPS, or else the first PSNR. Lower LPIPS is better.
    """
    path = folder / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]  # not a torn last line
    if not name:
        names = [key for line in lines for key in line if key.startswith("val/")]
        name = next((key for kind in ("lpips", "psnr") for key in names if key.endswith(kind)), "")
    found = [Score(line["step"], name, line[name]) for line in lines if math.isfinite(line.get(name, math.nan))]
    pick = min if name.endswith("lpips") else max
    return pick(found, key=lambda score: score.value) if found else None
