"""Load a transformer from safetensors block by block, so that it is never in memory at its full size.

Each block is read, fused with its adapter, folded and quantized before the next one is read. At any time, memory holds
at most one block that is not yet folded and quantized. FLUX.1-dev's modulation alone is a quarter of its weights.
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

# Files to download for a Hub id, without variants such as fp16.
FILES = [
    f"transformer/{SAFETENSORS_WEIGHTS_NAME}",
    f"transformer/{SAFE_WEIGHTS_INDEX_NAME}",
    f"transformer/{SAFETENSORS_WEIGHTS_NAME.replace('.safetensors', '-*-of-*.safetensors')}",
]


class Weights(Mapping[str, Tensor]):
    """Mapping from names to tensors of safetensors files, which are read on access."""

    def __init__(self, files: Iterable[Path]):
        opened = [safe_open(file, "pt") for file in files]
        self._files = {key: file for file in opened for key in file.keys()}  # noqa: SIM118, safe_open has no __iter__

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def has_safetensors(folder: Path) -> bool:
    """Return whether a folder has weights as safetensors, which ``weights_in`` can read."""
    return any((folder / name).is_file() for name in (SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME))


def weights_in(folder: Path) -> Weights:
    """Return the weights in a folder, from one file or from all shards of an index."""
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
        transformer: unfolded transformer on the meta device, from ``parts.skeleton``.
        weights: weights under diffusers' names.
        dtype: number format of the weights.
        device: device of the weights.
        adapter: folder of an adapter, whose LoRA is fused.
        at: (t, guidance, pooled prompt) for folding; None does not fold.
        scheme: quantization configuration from ``quantize.scheme_of``.

    Raises:
        ModelError: a weight has another shape, or the adapter does not fit.
    """
    lora = attach_lora(transformer, adapter) if adapter is not None else {}
    condition, embedder = None, family_of(transformer).embedder
    for parent, name, path in _parts(transformer, embedder):
        part = nn.ModuleDict({"part": getattr(parent, name)})  # a parent in which it can be replaced
        _fill(part["part"], path, (weights, lora), dtype, device)
        if lora:
            merge_lora(part)
        if at is not None:
            if path == embedder:  # always the first part
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
    """Yield (parent, name in the parent, full name) of the condition embedder, then of all other layers and blocks."""
    yield transformer, embedder, embedder
    for name, child in list(transformer.named_children()):
        if isinstance(child, nn.ModuleList):
            yield from ((child, str(i), f"{name}.{i}") for i in range(len(child)))
        elif name != embedder:
            yield transformer, name, name


def _fill(
    part: nn.Module, path: str, sources: Sequence[Mapping[str, Tensor]], dtype: torch.dtype, device: torch.device
) -> None:
    """Assign the weights of a part and of its adapter to its tensors on the meta device."""
    state = {}
    for name, empty in part.state_dict().items():
        key = f"{path}.{name}".replace(".base_layer.", ".")  # peft's name for a layer with an adapter
        state[name] = next(source for source in sources if key in source)[key].to(device, dtype)
        if state[name].shape != empty.shape:
            raise ModelError(f"weight {key} has shape {[*state[name].shape]}; the transformer needs {[*empty.shape]}")
    part.load_state_dict(state, assign=True)
