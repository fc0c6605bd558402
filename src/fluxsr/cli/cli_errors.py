"""What the commands tell: errors in one line, and what ``fluxsr info`` prints.

Light to import; torch is loaded by ``lines`` alone.
"""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

import fluxsr
from fluxsr.errors import FluxSRError, InputError
from fluxsr.names import printable

PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "pillow")


@contextmanager
def reported(debug: bool = False) -> Iterator[None]:
    """Turn errors that users can act on into one line and an exit code; bugs keep their trace.

    Exit codes: 2 for an argument (InputError), 1 for the rest, 130 when stopped from the keyboard.

    Args:
        debug: let every error through with its trace.
    """
    try:
        yield
    except FluxSRError as error:
        if debug:
            raise
        typer.echo(printable(f"error: {error}"), err=True)
        raise SystemExit(2 if isinstance(error, InputError) else 1) from error
    except KeyboardInterrupt as error:
        typer.echo("stopped; what is finished is kept, the same command goes on", err=True)
        raise SystemExit(130) from error


def lines(model: str, adapter: str | None, device: str, dtype: str, config: str | None = None) -> Iterator[str]:
    """Model, its card's first sentence, its settings, and versions.

    Raises:
        ModelError: the model cannot be loaded.
    """
    import torch

    from fluxsr.backbones.device import best_device, choose_dtype
    from fluxsr.processing.upscale_file import describe
    from fluxsr.single import load

    logging.getLogger("diffusers").setLevel(logging.ERROR)  # advice for programmers
    yield f"fluxsr {fluxsr.__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    yield f"threads: {torch.get_num_threads()}, cuda: {torch.version.cuda or 'not built in'}"
    pipeline = load(model, adapter=adapter, device=device, dtype=dtype, config_folder=config)
    yield f"model: {describe(pipeline)}"
    yield f"plan: {pipeline.plan.line()}"
    chosen, reason = choose_dtype(best_device(device), dtype)
    yield f"number format: {str(chosen).removeprefix('torch.')}, {reason}"
    folder = Path(fluxsr.__file__).parent / "pretrained" if model == "bundled" else Path(model)
    card = card_line(folder / "README.md")
    if card:
        yield f"card: {card}"
    settings = pipeline.adapter_config
    yield f"settings: t_l {settings.t_l:g}, strength {settings.strength:g}, guidance {settings.guidance}"


def card_line(card: Path) -> str:
    """The first sentence of a model card after its front matter and headings; empty without one."""
    if not card.is_file():
        return ""
    text = re.sub(r"\A---\n.*?\n---\n", "", card.read_text(encoding="utf-8", errors="replace"), flags=re.DOTALL)
    for paragraph in text.split("\n\n"):
        paragraph = " ".join(paragraph.split())
        if paragraph and not paragraph.startswith(("#", "<", "!", "|", "-")):
            return re.split(r"(?<=[.!?]) ", paragraph)[0]
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
