"""``fluxsr comfyui``: install the nodes in ComfyUI. Light to import."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from fluxsr.cli.replaced_folder import replaced_folder
from fluxsr.errors import InputError, OutputError

SOURCE = Path(__file__).parents[1] / "comfyui" / "custom_node"


def comfyui(
    folder: Annotated[Path, typer.Argument(metavar="COMFYUI", help="ComfyUI's folder, which contains custom_nodes.")],
) -> None:
    """Install or update FluxSR's nodes in ComfyUI."""
    target = install(folder)
    typer.echo(f"nodes in {target}; restart ComfyUI, with fluxsr installed in its Python (here: {sys.executable})")


def install(folder: Path) -> Path:
    """Copy the nodes and example workflows into a ComfyUI folder, and return where they are.

    Raises:
        InputError: the folder is not ComfyUI's.
        OutputError: a folder of this name is not from fluxsr, or cannot be written.
    """
    if not (folder / "custom_nodes").is_dir():
        raise InputError(f"{folder} has no folder custom_nodes; give the folder that contains ComfyUI")
    target = folder / "custom_nodes" / "fluxsr"
    if target.exists() and not is_ours(target):
        raise OutputError(f"{target} is not from fluxsr; move it away and try again")
    with replaced_folder(target) as new:
        shutil.copytree(SOURCE, new, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return target


def is_ours(target: Path) -> bool:
    """Return whether an installed folder is from fluxsr."""
    entry = target / "__init__.py"
    return entry.is_file() and "fluxsr.comfyui" in entry.read_text(encoding="utf-8", errors="replace")
