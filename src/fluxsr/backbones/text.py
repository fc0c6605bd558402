"""Encode texts in batches with the model's own text encoders (CLIP and T5, or Qwen3)."""

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
from fluxsr.errors import ModelError, needed


class EncodedPrompts:
    """Embeddings of many texts on the CPU. A call returns those of the texts in its argument."""

    def __init__(self, prompts: Sequence[str], prompt_embeds: Tensor, pooled_prompt_embeds: Tensor):
        """Store ``prompt_embeds`` (n,L,D) and ``pooled_prompt_embeds`` (n,P) of n prompts."""
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
    """Encode texts like the model's diffusers pipeline, and free the text encoders afterwards.

    Args:
        model: folder in diffusers layout or Hub id, with text encoders and tokenizers.
        prompts: distinct texts.
        device: device of the encoders.
        dtype: number format of the encoders.
        tokens: length of the embeddings. FLUX also attends to the padding, so the length changes the condition.
        batch: texts per forward pass.
        spool: folder for the embeddings, 4 MiB per prompt for FLUX.1. The default is the system's temporary folder.

    Raises:
        ModelError: encoders are missing or cannot be loaded.
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
    """Load the model's diffusers pipeline with the text encoders only."""
    needed("a text encoder", "flux", "transformers")
    folder = folder_of(model)
    missing = [part for part in family.text_parts if isinstance(folder, Path) and not (folder / part).is_dir()]
    if missing:
        raise ModelError(f"{model} has no {missing[0]}/; use a model with text encoders, or for pairs no prompts")
    with in_one_line(model, "text encoders"):
        return DiffusionPipeline.from_pretrained(folder, transformer=None, vae=None, torch_dtype=dtype)


def _spooled(shape: Sequence[int], dtype: torch.dtype, folder: str | Path | None) -> Tensor:
    """Return a tensor in an unnamed temporary file. It needs no memory, and vanishes when the process ends."""
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  the memory map keeps it open
    held = np.memmap(file, dtype=np.uint8, mode="w+", shape=(math.prod(shape) * dtype.itemsize,))
    return torch.from_numpy(held).view(dtype).reshape(*shape)
