"""``fluxsr prompt``: encode the fixed prompt that is used for every image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fluxsr.cli.arguments import Device
from fluxsr.errors import OutputError


def prompt(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Prompt text. It may be empty.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for prompt_embeds.safetensors.")],
    model: Annotated[str, typer.Option(help="Model with text encoders: a folder in diffusers layout, or a Hub id.")],
    tokens: Annotated[int, typer.Option(min=1, max=512, help="Number of T5 tokens, including padding.")] = 512,
    device: Device = "auto",
) -> None:
    """Encode a fixed prompt for training and adapters.

    Text encoders are needed only for this command.
    """
    import torch
    from safetensors import SafetensorError

    from fluxsr.backbones.device import best_device
    from fluxsr.backbones.text import encode_prompts

    # In bfloat16, as the pairs' prompts are: float16 overflows in T5.
    encoded = encode_prompts(model, [text], best_device(device), torch.bfloat16, tokens)([text])
    encoded = replace(encoded, text=text)  # training writes it into the adapter's config
    try:
        output.mkdir(parents=True, exist_ok=True)
        encoded.save(output)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {output}: {error}") from error
    shapes = ", ".join(str(tuple(part.shape)) for part in (encoded.prompt_embeds, encoded.pooled_prompt_embeds))
    typer.echo(f"prompt of {shapes} in {output}")
