"""``fluxsr push``: publish an adapter or a model on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxsr.cli.arguments import Debug
from fluxsr.cli.cli_errors import report_errors


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of an adapter, or of a model that `fluxsr export` wrote.")],
    repo_id: Annotated[str, typer.Option(help="Repository, owner/name. It is created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    base_model: Annotated[
        str, typer.Option(help="Hub id of the base model. Defaults to the one in the adapter's config.")
    ] = "",
    license: Annotated[
        str, typer.Option(help="Hub identifier of the licence, such as apache-2.0, if the base model's does not apply.")
    ] = "",
    license_file: Annotated[Path | None, typer.Option(help="Licence text. Defaults to the one in the folder.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Training recipe (YAML) to show in the model card.")] = None,
    results: Annotated[Path | None, typer.Option(help="Measured results (Markdown) to show in the card.")] = None,
    message: Annotated[str | None, typer.Option(help="Commit message.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print card and files, but upload nothing.")] = False,
    debug: Debug = False,
) -> None:
    """Publish an adapter or a model on the Hugging Face Hub. Log in with `hf auth login` first."""
    with report_errors(debug):
        from fluxsr.hub import publish
        from fluxsr.hub.contents import CardOverrides, contents

        overrides = CardOverrides(base_model, license, license_file, recipe, results)
        files = contents(folder, publish.checked_id(repo_id), overrides)
        card = bytes(files["README.md"]).decode()
        if "\nlicense: " not in card:
            typer.echo("warning: no licence is known, so nobody may use the model; give --license", err=True)
        if dry_run:
            typer.echo(card, nl=False)
        for name, content in files.items():
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            typer.echo(f"{name}: {size:,} bytes", err=True)
        if not dry_run:
            typer.echo(publish.push(files, repo_id, private=private or None, message=message, create_pr=create_pr))
