"""Load a transformer from any source, then fuse its adapter, fold its modulation and quantize it, in this order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError

from fluxsr.backbones.families import family_of, is_folded
from fluxsr.backbones.folding import fold
from fluxsr.backbones.lora import attach_lora, fuse_lora
from fluxsr.backbones.parts import check_complete, load_part, part_config
from fluxsr.backbones.places import download, explain
from fluxsr.backbones.quantize import compute_in, declare, is_quantized, quantize_
from fluxsr.backbones.single_file import is_gguf, load_gguf, read_weights
from fluxsr.backbones.streaming import FILES, has_safetensors, stream, weights_in
from fluxsr.errors import ModelError

T = TypeVar("T")


def assemble(
    empty: Any,
    folder: Path | str,
    file: Path | None,
    dtype: torch.dtype,
    device: torch.device,
    lora: Path | None,
    at: tuple[float, float | None, torch.Tensor] | None,
    scheme: Any,
) -> Any:
    """Return the transformer, ready to run.

    Args:
        empty: the transformer's ``parts.skeleton``; do not use it afterwards.
        folder: folder in diffusers layout, or Hub id.
        file: file with the weights, or None if they are in ``folder``.
        lora: folder of an adapter, whose LoRA is fused.
        at, scheme: see ``streaming.stream``.

    Raises:
        ModelError: a part is missing, or the adapter does not fit.
    """
    weights = _readable(file or folder, lambda: _original(empty, folder, file))
    if weights is not None:
        check_complete(file or f"{folder}/transformer", set(empty.state_dict()) - set(weights))
        return _readable(
            file or folder, lambda: stream(empty, weights, dtype, device, adapter=lora, at=at, scheme=scheme)
        )
    transformer = load_gguf(file, Path(folder), dtype) if file else load_part(folder, "transformer", dtype)
    if scheme and is_quantized(transformer):
        raise ModelError(f"the transformer of {file or folder} is already quantized; use quantize none")
    if lora:  # a LoRA cannot be merged into quantized weights
        (attach_lora if is_quantized(transformer) else fuse_lora)(transformer, lora)
    transformer = transformer.to(device)
    if at:
        transformer = fold(transformer, *at)
    quantize_(transformer, scheme)
    compute_in(transformer, dtype)
    declare(transformer, scheme)
    return transformer


def _readable(model: Path | str, read: Callable[[], T]) -> T:
    """Return the result of a function that reads weights, and turn its read errors into a ModelError of one line."""
    try:
        return read()
    except (OSError, SafetensorError) as error:
        raise ModelError(explain(model, "transformer", error)) from error


def _original(empty: Any, folder: Path | str, file: Path | None) -> Mapping[str, torch.Tensor] | None:
    """Return the weights if they can be streamed: in safetensors, unfolded and not quantized. Otherwise return None."""
    if file:
        return None if is_gguf(file) else read_weights(file, family_of(empty))
    if is_folded(empty) or part_config(folder, "transformer").get("quantization_config"):
        return None
    local = download(folder, FILES, "transformer") if isinstance(folder, str) else folder
    return weights_in(local / "transformer") if has_safetensors(local / "transformer") else None
