"""Save and load the fixed prompt, whose embeddings are computed once and stored with the adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fluxsr.backbones.places import COMPONENT_FILE, COMPONENT_FOLDER
from fluxsr.backbones.places import PROMPT_FILE as FILE
from fluxsr.errors import ModelError, first_line, is_untranslatable


@dataclass(frozen=True)
class FixedPrompt:
    """Text condition of all images, so that inference needs no text encoder.

    Attributes:
        prompt_embeds: (1,L,D), or (B,L,D) if every image of a batch has its own. For FLUX.1, T5 states (D = 4096).
        pooled_prompt_embeds: (1,P) or (B,P). For FLUX.1, CLIP's pooled state (P = 768).
        text: text that was encoded, for information only; "" if unknown.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    text: str = ""

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> FixedPrompt:
        embeds, pooled = (part.to(device, dtype) for part in (self.prompt_embeds, self.pooled_prompt_embeds))
        return FixedPrompt(embeds, pooled, self.text)

    def save(self, folder: str | Path) -> None:
        """Write ``prompt_embeds.safetensors`` into a folder, with the text in its header."""
        tensors = {"prompt_embeds": self.prompt_embeds, "pooled_prompt_embeds": self.pooled_prompt_embeds}
        tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
        save_file(tensors, Path(folder) / FILE, {"text": self.text} if self.text else None)


class PromptEmbeddings(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The fixed prompt as a component of a diffusers pipeline: two buffers and the text.

    The buffers move with the pipeline but keep their number format, because a folded transformer recognises its prompt
    by the exact values. ``velocity`` casts them to the transformer's format.

    Args:
        tokens, width: ``prompt_embeds`` has the shape (1,tokens,width).
        pooled_width: ``pooled_prompt_embeds`` has the shape (1,pooled_width).
        text: text that was encoded, for information only.
    """

    __module__ = "fluxsr"  # diffusers looks for the class there when it loads a pipeline

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor

    @register_to_config
    def __init__(self, tokens: int = 512, width: int = 4096, pooled_width: int = 768, text: str = "") -> None:
        super().__init__()
        self.register_buffer("prompt_embeds", torch.zeros(1, tokens, width))
        self.register_buffer("pooled_prompt_embeds", torch.zeros(1, pooled_width))

    @classmethod
    def of(cls, prompt: FixedPrompt, text: str = "") -> PromptEmbeddings:
        """Return the component with the tensors of a fixed prompt. ``text`` is used if the prompt has no text."""
        embeds, pooled = prompt.prompt_embeds, prompt.pooled_prompt_embeds
        with torch.device("meta"):
            component = cls(*embeds.shape[1:], pooled.shape[-1], prompt.text or text)
        component.prompt_embeds, component.pooled_prompt_embeds = embeds.detach(), pooled.detach()
        return component.eval()

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> PromptEmbeddings:
        """Load the component like any model of diffusers, but always in the number format of the file."""
        return super().from_pretrained(folder, **{**options, "torch_dtype": None, "dtype": None})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PromptEmbeddings:
        """Move the buffers, but do not cast them."""

        def move(buffer: Tensor) -> Tensor:
            moved = fn(buffer)
            return moved if moved.dtype == buffer.dtype else buffer.to(moved.device)

        return super()._apply(move, recurse)


def load_prompt(folder: str | Path) -> FixedPrompt:
    """Read the fixed prompt of a folder.

    It is read from the first of these that exists:

    - ``prompt_embeds.safetensors``
    - ``t5_embedding.pth`` and ``clip_embedding.pth``, read with weights_only=True. Each holds a tensor, or a dict with
      one tensor, with or without batch axis.
    - ``prompt/``, a saved `PromptEmbeddings`. It is last, so that an adapter in the folder of a pipeline overrides it.

    Raises:
        ModelError: there is no prompt, it cannot be read, or its shapes do not fit.
    """
    folder, text = Path(folder), ""
    try:
        if (folder / FILE).is_file():
            tensors = load_file(folder / FILE)
            embeds, pooled = tensors["prompt_embeds"], tensors["pooled_prompt_embeds"]
            with safe_open(folder / FILE, "pt") as file:
                text = (file.metadata() or {}).get("text", "")
        elif (folder / "t5_embedding.pth").is_file() and (folder / "clip_embedding.pth").is_file():
            embeds, pooled = (_single(folder / f"{name}_embedding.pth") for name in ("t5", "clip"))
        elif (folder / COMPONENT_FILE).is_file():
            tensors = load_file(folder / COMPONENT_FILE)
            embeds, pooled = tensors["prompt_embeds"], tensors["pooled_prompt_embeds"]
            text = json.loads((folder / COMPONENT_FOLDER / "config.json").read_text(encoding="utf-8")).get("text", "")
        else:
            raise ModelError(
                f"no fixed prompt in {folder}; expected {FILE}, or t5_ and clip_embedding.pth (see `fluxsr prompt`)"
            )
    except KeyError as error:
        raise ModelError(f"{folder / FILE} has no {error}; it needs prompt_embeds and pooled_prompt_embeds") from error
    except (SafetensorError, UnpicklingError, EOFError, OSError, RuntimeError, ValueError) as error:
        if is_untranslatable(error):
            raise
        raise ModelError(f"fixed prompt in {folder} cannot be read: {first_line(error)}") from error
    embeds = embeds[None] if embeds.ndim == 2 else embeds
    pooled = pooled[None] if pooled.ndim == 1 else pooled
    if embeds.ndim != 3 or pooled.ndim != 2 or len(embeds) != 1 or len(pooled) != 1:
        raise ModelError(
            f"fixed prompt in {folder} has shapes {tuple(embeds.shape)} and {tuple(pooled.shape)}; "
            "expected (1,L,D) and (1,P)"
        )
    return FixedPrompt(embeds, pooled, text)


def _single(path: Path) -> Tensor:
    value = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(value, dict):
        tensors = [entry for entry in value.values() if isinstance(entry, Tensor)]
        if len(tensors) != 1:
            raise ModelError(f"{path} holds {len(tensors)} tensors; expected one")
        value = tensors[0]
    if not isinstance(value, Tensor):
        raise ModelError(f"{path} holds a {type(value).__name__}; expected a tensor, or a dict with one")
    return value


def random_prompt(tokens: int, dim: int, generator: torch.Generator) -> FixedPrompt:
    """Return a random fixed prompt for models without a text encoder, such as the bundled one."""
    return FixedPrompt(torch.randn(1, tokens, dim, generator=generator), torch.randn(1, dim, generator=generator))
