"""``fluxsr prompt``: the embeddings of the one text that every image is restored with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fluxsr.errors import OutputError


def prompt(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The prompt; an empty one is a prompt too.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for prompt_embeds.safetensors.")],
    model: Annotated[str, typer.Option(help="Folder in diffusers layout, or a Hub id, with its text encoders.")],
    tokens: Annotated[int, typer.Option(min=1, max=512, help="Length of T5's states; the padding counts too.")] = 512,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps or xpu.")] = "auto",
) -> None:
    """Encode a fixed prompt, which training and adapters need; the text encoders are needed here only."""
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
