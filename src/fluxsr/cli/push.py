"""``fluxsr push``: an adapter or a model onto the Hub, with its model card, licence and notice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxsr.cli.arguments import Debug
from fluxsr.cli.cli_errors import report_errors


def push(
    folder: Annotated[Path, typer.Argument(help="Of an adapter, or of a model as `fluxsr export` writes it.")],
    repo_id: Annotated[str, typer.Option(help="owner/name on the Hub; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Nobody else sees a new repository.")] = False,
    base_model: Annotated[str, typer.Option(help="Hub id of the base, where the adapter's config names none.")] = "",
    license: Annotated[
        str, typer.Option(help="The Hub's name of its licence (apache-2.0 ...), if the base does not decide.")
    ] = "",
    license_file: Annotated[
        Path | None, typer.Option(help="The licence's text, where it is not in the folder.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML of its training, printed in the card.")] = None,
    results: Annotated[Path | None, typer.Option(help="Markdown of measured figures, printed in the card.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print card and files, and upload nothing.")] = False,
    debug: Debug = False,
) -> None:
    """Put an adapter or a model on the Hub; log in with `hf auth login` first."""
    with report_errors(debug):
        from fluxsr.hub import publish
        from fluxsr.hub.contents import CardOverrides, contents

        overrides = CardOverrides(base_model, license, license_file, recipe, results)
        files = contents(folder, publish.checked_id(repo_id), overrides)
        card = bytes(files["README.md"]).decode()
        if "\nlicense: " not in card:
            typer.echo("warning: no licence is known for it, so nobody may use it; give --license", err=True)
        if dry_run:
            typer.echo(card, nl=False)
        for name, content in files.items():
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            typer.echo(f"{name}: {size:,} bytes", err=True)
        if not dry_run:
            typer.echo(publish.push(files, repo_id, private=private or None, message=message, create_pr=create_pr))
