"""``fluxsr comfyui``: put the nodes into a ComfyUI. Light to import."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fluxsr.errors import InputError, OutputError

SOURCE = Path(__file__).parents[1] / "comfyui" / "custom_node"
NAME = "fluxsr"


def comfyui(
    folder: Annotated[Path, typer.Argument(metavar="COMFYUI", help="ComfyUI's folder, the one with custom_nodes.")],
) -> None:
    """Put FluxSR's nodes into a ComfyUI, or renew them."""
    target = install(folder)
    typer.echo(f"nodes in {target}; restart ComfyUI, with fluxsr installed in its Python (here: {sys.executable})")


def install(folder: Path) -> Path:
    """Copy the custom-node folder, example workflows included, in place of one of ours that is there.

    Returns:
        Where it is now.

    Raises:
        InputError: no ComfyUI there.
        OutputError: another's folder of that name, or one that cannot be written.
    """
    nodes = folder / "custom_nodes"
    if not nodes.is_dir():
        raise InputError(f"{folder} has no folder custom_nodes; name the folder that ComfyUI is in")
    target = nodes / NAME
    if target.exists() and not is_ours(target):
        raise OutputError(f"{target} is not from fluxsr; move it away and try again")
    try:
        with tempfile.TemporaryDirectory(prefix=".fluxsr-", dir=nodes) as work:
            made, old = Path(work, "new"), Path(work, "old")
            shutil.copytree(SOURCE, made, ignore=shutil.ignore_patterns("__pycache__"))
            if target.is_symlink():
                target.unlink()
            elif target.exists():
                target.rename(old)
            made.rename(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error}") from error
    return target


def is_ours(target: Path) -> bool:
    """Whether a folder's entry is the one that we put there."""
    entry = target / "__init__.py"
    return entry.is_file() and "fluxsr.comfyui" in entry.read_text(encoding="utf-8", errors="replace")
