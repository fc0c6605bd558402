"""``fluxsr train STAGE``: one command per stage that is trained from a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from fluxsr.cli.arguments import Device
from fluxsr.errors import needed

RecipeOption = Annotated[Path, typer.Option("--recipe", help="Recipe, a YAML file such as those in recipes/.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for checkpoints, logs and results.")]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(metavar="[KEY=VALUE]...", help="Options that replace those of the recipe, such as run.steps=100."),
]
ResumeOption = Annotated[
    str,
    typer.Option("--resume-from-checkpoint", help="'latest', 'none' or a file. Replaces run.resume of the recipe."),
]

train = typer.Typer(help="Train a stage from its recipe. Run the same command again to resume.", no_args_is_help=True)
_STAGES = {
    "autoencoder": "Stage 1: train the autoencoder on clean photographs.",
    "teacher": "Stage 2: train the flow-matching teacher.",
    "restorer": "Stage 4, for small models: train the convolutions that restore the enlarged image.",
    "distill": "Stage 5: train the one-step student by Flow Trajectory Distillation.",
}


def _command(stage: str) -> Callable[..., None]:
    def command(recipe: RecipeOption, out: OutOption, overrides: Overrides = None, resume: ResumeOption = "") -> None:
        needed("fluxsr train", "train", "accelerate", "peft", "transformers")
        from fluxsr import recipe as recipes
        from fluxsr.training import distillation, stages
        from fluxsr.training.config import STAGES

        given = [f"run.resume={json.dumps(resume)}"] if resume else []
        config: Any = recipes.load(STAGES[stage], recipe, [*(overrides or []), *given])
        getattr(distillation if stage == "distill" else stages, f"train_{stage}")(config, out)

    return command


for _stage, _help in _STAGES.items():
    train.command(_stage, help=_help)(_command(_stage))


@train.command()
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="A step-*.pt file, or the folder of a distill run for its best checkpoint."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    device: Device = "auto",
) -> None:
    """Write a checkpoint of stage 5 as an adapter, or as a model folder if its recipe says so."""
    from fluxsr.training.student import export_checkpoint

    typer.echo(f"{output}: written from {export_checkpoint(checkpoint, output, device)}")
