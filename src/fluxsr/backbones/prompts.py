"""The fixed prompt: its embeddings are computed once and travel with the adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fluxsr.backbones.places import PROMPT_FILE as FILE
from fluxsr.errors import ModelError, is_untranslatable


@dataclass(frozen=True)
class FixedPrompt:
    """Text condition of every image: no text encoder is needed once it is computed.

    Attributes:
        prompt_embeds: (1,L,D), T5 states for FLUX (D = 4096); (B,L,D) where every image of a batch has its own.
        pooled_prompt_embeds: (1,P), CLIP's pooled state for FLUX (P = 768); or (B,P).
        text: what was encoded, for people; empty where nobody wrote it down.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    text: str = ""

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> FixedPrompt:
        embeds, pooled = (part.to(device, dtype) for part in (self.prompt_embeds, self.pooled_prompt_embeds))
        return FixedPrompt(embeds, pooled, self.text)

    def save(self, folder: str | Path) -> None:
        """Write ``prompt_embeds.safetensors`` into a folder, the text in its header."""
        tensors = {"prompt_embeds": self.prompt_embeds, "pooled_prompt_embeds": self.pooled_prompt_embeds}
        whole = {key: value.cpu().contiguous() for key, value in tensors.items()}
        save_file(whole, Path(folder) / FILE, {"text": self.text} if self.text else None)


def load_prompt(folder: str | Path) -> FixedPrompt:
    """Read a fixed prompt: our safetensors file, or ``t5_embedding.pth`` and ``clip_embedding.pth``.

    The latter are read with weights_only=True, as a tensor or a dict with one tensor, with or without batch axis.

    Raises:
        ModelError: no file, or shapes that do not fit.
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
        else:
            raise ModelError(
                f"no fixed prompt in {folder}: expected {FILE} or t5_ and clip_embedding.pth; `fluxsr prompt` makes one"
            )
    except KeyError as error:
        raise ModelError(f"{folder / FILE} has no {error}; it needs prompt_embeds and pooled_prompt_embeds") from error
    except (SafetensorError, UnpicklingError, EOFError, OSError, RuntimeError, ValueError) as error:
        if is_untranslatable(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"fixed prompt in {folder} cannot be read: {reason}") from error
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
    """A fixed random condition for models without a text encoder, such as the bundled one."""
    return FixedPrompt(torch.randn(1, tokens, dim, generator=generator), torch.randn(1, dim, generator=generator))
