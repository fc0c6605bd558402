"""Texts to embeddings by the model's own encoders (CLIP and T5, or Qwen3): loaded once, used in batches, freed."""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from fluxsr.backbones.families import family_of
from fluxsr.backbones.family import Family
from fluxsr.backbones.parts import part_config
from fluxsr.backbones.places import folder_of, in_one_line
from fluxsr.backbones.prompts import FixedPrompt
from fluxsr.errors import ModelError


class EncodedPrompts:
    """Embeddings of many texts, on the CPU; a call gives those of a few."""

    def __init__(self, prompts: Sequence[str], prompt_embeds: Tensor, pooled_prompt_embeds: Tensor):
        """``prompt_embeds``: (n,L,D) and ``pooled_prompt_embeds``: (n,P) of the n prompts."""
        self.index = {prompt: k for k, prompt in enumerate(prompts)}
        self.prompt_embeds, self.pooled_prompt_embeds = prompt_embeds, pooled_prompt_embeds

    def __call__(self, prompts: Sequence[str]) -> FixedPrompt:
        rows = torch.tensor([self.index[prompt] for prompt in prompts])
        return FixedPrompt(self.prompt_embeds[rows], self.pooled_prompt_embeds[rows])


@torch.no_grad()
def encode_prompts(
    model: str | Path,
    prompts: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    tokens: int = 512,
    batch: int = 16,
    spool: str | Path | None = None,
) -> EncodedPrompts:
    """Encode texts as the model's pipeline of diffusers does, and free the encoders before the transformer is loaded.

    Args:
        model: folder in diffusers layout, or a Hub id, with its text encoders and tokenizers.
        prompts: distinct texts.
        tokens: length of the states; FLUX attends to the padding too, so that it is part of the condition.
        spool: folder for the embeddings, which take 4 MiB a prompt at FLUX's size; by default the system's own.

    Raises:
        ModelError: encoders that are missing or cannot be loaded.
    """
    family = family_of(part_config(model, "transformer"))
    pipe = _encoders(model, family, dtype).to(device)
    embeds, pooled = None, []
    for first in range(0, len(prompts), batch):
        texts = prompts[first : first + batch]
        states, clip = family.encode_texts(pipe, texts, device, tokens)
        if embeds is None:
            embeds = _spooled((len(prompts), *states.shape[1:]), states.dtype, spool)
        embeds[first : first + len(texts)] = states.cpu()
        pooled.append(clip.cpu())
    del pipe
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if embeds is None:
        raise ValueError("no prompts to encode")
    return EncodedPrompts(prompts, embeds, torch.cat(pooled))


def _encoders(model: str | Path, family: Family, dtype: torch.dtype) -> Any:
    """The model's own pipeline of the text encoders alone."""
    folder = folder_of(model)
    missing = [part for part in family.text_parts if isinstance(folder, Path) and not (folder / part).is_dir()]
    if missing:
        raise ModelError(
            f"{model} has no {missing[0]}/; prompts need a model with text encoders, or else (pairs) no prompts"
        )
    with in_one_line(model, "text encoders"):
        return DiffusionPipeline.from_pretrained(folder, transformer=None, vae=None, torch_dtype=dtype)


def _spooled(shape: Sequence[int], dtype: torch.dtype, folder: str | Path | None) -> Tensor:
    """A tensor in a file without a name: thousands of embeddings need no memory, and a kill leaves nothing behind."""
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  the map holds it
    held = np.memmap(file, dtype=np.uint8, mode="w+", shape=(math.prod(shape) * dtype.itemsize,))
    return torch.from_numpy(held).view(dtype).reshape(*shape)
