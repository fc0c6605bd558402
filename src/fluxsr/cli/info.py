"""``fluxsr info``: versions, model and device."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import re
from pathlib import Path

import typer

import fluxsr
from fluxsr.cli.arguments import Debug, expand_dataclass_options
from fluxsr.cli.cli_errors import report_errors
from fluxsr.names import printable
from fluxsr.options import ModelOptions

PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "pillow")


@expand_dataclass_options
def info(*, model: ModelOptions, debug: Debug = False) -> None:
    """Print versions, model and device, for a bug report."""
    with report_errors(debug):
        import torch

        from fluxsr.backbones.device import best_device, choose_dtype
        from fluxsr.processing.upscale_file import describe, load

        logging.getLogger("diffusers").setLevel(logging.ERROR)  # advice for programmers

        def show(line: str) -> None:
            typer.echo(printable(line))

        show(f"fluxsr {fluxsr.__version__}, Python {platform.python_version()}, {platform.platform()}")
        versions = {one.name.lower(): one.version for one in importlib.metadata.distributions()}
        show(", ".join(f"{name} {versions.get(name, 'not installed')}" for name in PACKAGES))
        show(f"threads: {torch.get_num_threads()}, cuda: {torch.version.cuda or 'not built in'}")
        pipeline = load(model)
        show(f"model: {describe(pipeline)}")
        show(f"plan: {pipeline.plan.line()}")
        chosen, reason = choose_dtype(best_device(model.device), model.dtype)
        show(f"number format: {str(chosen).removeprefix('torch.')}, {reason}")
        folder = Path(fluxsr.__file__).parent / "pretrained" if model.model == "bundled" else Path(model.model)
        if card := card_line(folder / "README.md"):
            show(f"card: {card}")
        settings = pipeline.adapter_config
        show(f"settings: t_l {settings.t_l:g}, strength {settings.strength:g}, guidance {settings.guidance}")


def card_line(card: Path) -> str:
    """Return the first sentence of a model card after its metadata and headings; empty if there is none."""
    if not card.is_file():
        return ""
    text = re.sub(r"\A---\n.*?\n---\n", "", card.read_text(encoding="utf-8", errors="replace"), flags=re.DOTALL)
    for paragraph in text.split("\n\n"):
        paragraph = " ".join(paragraph.split())
        if paragraph and not paragraph.startswith(("#", "<", "!", "|", "-")):
            return re.split(r"(?<=[.!?]) ", paragraph)[0]
    return ""
