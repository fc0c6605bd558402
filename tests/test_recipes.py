"""Every recipe that is shipped loads, and opens with the command that launches it."""

from __future__ import annotations

from dataclasses import is_dataclass
from pathlib import Path

import pytest

from fluxsr import recipe
from fluxsr.degradation import DegradationSettings
from fluxsr.errors import InputError
from fluxsr.training.config import STAGES

SCHEMAS = {**STAGES, "degradation": DegradationSettings}
ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=relative)
def test_recipe_loads(path: Path) -> None:
    stage = recipe.stage_of(path)
    assert stage in SCHEMAS, f"stage is {stage!r}, expected one of {sorted(SCHEMAS)}"
    options = recipe.load(SCHEMAS[stage], path, [])
    assert is_dataclass(options)


@pytest.mark.parametrize("path", RECIPES, ids=relative)
def test_recipe_opens_with_its_launch_command(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("#"), "the first line must be a comment with the launch command"
    assert "fluxsr " in first and relative(path) in first


@pytest.mark.parametrize("path", RECIPES, ids=relative)
def test_unknown_key_is_an_error(path: Path) -> None:
    with pytest.raises(InputError, match="no_such_key"):
        recipe.load(SCHEMAS[recipe.stage_of(path)], path, ["no_such_key=1"])
