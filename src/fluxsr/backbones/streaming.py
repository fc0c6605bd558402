"""Load a transformer from safetensors block by block, so that it is never held at its full size.

Each part is read, takes its adapter, is folded and quantized before the next is read. FLUX.1-dev's modulation, a
quarter of its weights, is never in memory together, nor is more than one block that is not quantized yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from torch import Tensor, nn

from fluxsr.backbones.families import family_of
from fluxsr.backbones.folding import as_folded, condition_of, fold_part
from fluxsr.backbones.lora import attach_lora, merge_lora
from fluxsr.backbones.quantize import declare, quantize_
from fluxsr.errors import ModelError

# What a Hub id needs on disk; variants beside them (fp16 ...) stay where they are.
FILES = [
    f"transformer/{SAFETENSORS_WEIGHTS_NAME}",
    f"transformer/{SAFE_WEIGHTS_INDEX_NAME}",
    f"transformer/{SAFETENSORS_WEIGHTS_NAME.replace('.safetensors', '-*-of-*.safetensors')}",
]


class Weights(Mapping[str, Tensor]):
    """The tensors of safetensors files by name, read on access."""

    def __init__(self, files: Iterable[Path]):
        opened = [safe_open(file, "pt") for file in files]
        self._files = {key: file for file in opened for key in file.keys()}  # noqa: SIM118, it has no __iter__

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def has_safetensors(folder: Path) -> bool:
    """Whether a part's folder holds what ``weights_in`` reads (and not pickles)."""
    return any((folder / name).is_file() for name in (SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME))


def weights_in(folder: Path) -> Weights:
    """The weights of a part's folder, in one file or, with an index, in several."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    names = {SAFETENSORS_WEIGHTS_NAME}
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return Weights(folder / name for name in sorted(names))


def stream(
    transformer: Any,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device,
    *,
    adapter: Path | None = None,
    at: tuple[float, float | None, Tensor] | None = None,
    scheme: Any = None,
) -> Any:
    """Load, fuse, fold and quantize a transformer one block at a time.

    Args:
        transformer: a ``parts.skeleton``, unfolded.
        weights: under diffusers' names.
        adapter: folder of an adapter, whose LoRA is fused.
        at: (t, guidance, pooled prompt) to fold at; None does not fold.
        scheme: of ``quantize.scheme_of``.

    Raises:
        ModelError: a weight has another shape, or the adapter does not fit.
    """
    lora = attach_lora(transformer, adapter) if adapter is not None else {}
    condition, embedder = None, family_of(transformer).embedder
    for parent, name, path in _parts(transformer, embedder):
        part = nn.ModuleDict({"part": getattr(parent, name)})  # a parent of its own, for parts that are one layer
        _fill(part["part"], path, (weights, lora), dtype, device)
        merge_lora(part)
        if at is not None:
            if path == embedder:  # comes first
                setattr(parent, name, part["part"])
                condition = condition_of(transformer, *at, dtype)
                delattr(transformer, embedder)
                continue
            fold_part(part, transformer, condition)
        quantize_(part, scheme)
        setattr(parent, name, part["part"])
    if adapter is not None:
        transformer.unload_lora()
    if at is not None:
        transformer = as_folded(transformer, *at)
    declare(transformer, scheme)
    return transformer


def _parts(transformer: Any, embedder: str) -> Iterator[tuple[nn.Module, str, str]]:
    """(parent, name in it, whole name) of the embedder of conditions, then of every other layer and block."""
    yield transformer, embedder, embedder
    for name, child in list(transformer.named_children()):
        if isinstance(child, nn.ModuleList):
            yield from ((child, str(i), f"{name}.{i}") for i in range(len(child)))
        elif name != embedder:
            yield transformer, name, name


def _fill(
    part: nn.Module, path: str, sources: Sequence[Mapping[str, Tensor]], dtype: torch.dtype, device: torch.device
) -> None:
    """Put a part's tensors, and those of its adapter, where it has places without memory for them."""
    state = {}
    for name, place in part.state_dict().items():
        key = f"{path}.{name}".replace(".base_layer.", ".")  # what peft calls a layer that has an adapter
        state[name] = next(source for source in sources if key in source)[key].to(device, dtype)
        if state[name].shape != place.shape:
            raise ModelError(f"weight {key} has shape {[*state[name].shape]}, the transformer's has {[*place.shape]}")
    part.load_state_dict(state, assign=True)
