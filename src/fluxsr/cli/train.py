"""``fluxsr train STAGE``: every trained stage of the recipe is a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

RecipeOption = Annotated[Path, typer.Option("--recipe", help="YAML file, see recipes/.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of checkpoints, logs and results.")]
Overrides = Annotated[Optional[list[str]], typer.Argument(help="key=value, e.g. run.steps=100")]  # noqa: UP045

ResumeOption = Annotated[
    str,
    typer.Option("--resume-from-checkpoint", help="latest, none or a file; stands before run.resume of the recipe."),
]

train = typer.Typer(help="Train a stage from its recipe; run again to resume.", no_args_is_help=True)


def _run(stage: str, recipe: Path, out: Path, overrides: list[str] | None, resume: str = "") -> None:
    from fluxsr import recipe as recipes
    from fluxsr.training import distillation, stages
    from fluxsr.training.config import STAGES

    wanted = [f"run.resume={json.dumps(resume)}"] if resume else []
    config: Any = recipes.load(STAGES[stage], recipe, [*(overrides or []), *wanted])
    runs: dict[str, Callable[[Any, Path], None]] = {
        "autoencoder": stages.train_autoencoder,
        "perceptual": stages.train_perceptual,
        "teacher": stages.train_teacher,
        "distill": distillation.train_distill,
    }
    runs[stage](config, out)


@train.command()
def autoencoder(recipe: RecipeOption, out: OutOption, overrides: Overrides = None, resume: ResumeOption = "") -> None:
    """Stage 1: the autoencoder, on clean photographs."""
    _run("autoencoder", recipe, out, overrides, resume)


@train.command()
def perceptual(recipe: RecipeOption, out: OutOption, overrides: Overrides = None, resume: ResumeOption = "") -> None:
    """Stage 2: the feature network of the perceptual distance."""
    _run("perceptual", recipe, out, overrides, resume)


@train.command()
def teacher(recipe: RecipeOption, out: OutOption, overrides: Overrides = None, resume: ResumeOption = "") -> None:
    """Stage 3: the flow-matching teacher."""
    _run("teacher", recipe, out, overrides, resume)


@train.command()
def distill(recipe: RecipeOption, out: OutOption, overrides: Overrides = None, resume: ResumeOption = "") -> None:
    """Stage 5: Flow Trajectory Distillation of the one-step student."""
    _run("distill", recipe, out, overrides, resume)
