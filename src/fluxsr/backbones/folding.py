"""Folding: in one-step use, time, pooled text and guidance never change, so every modulation vector is a constant."""

from __future__ import annotations

import hashlib
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.backbones.families import family_of, is_folded
from fluxsr.backbones.family import NoCondition, replace_modules
from fluxsr.backbones.velocity import needed_guidance

QUANTIZED = ("hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_4bit")  # mark quantized weights


def fold(transformer: Any, t: float, guidance: float | None, pooled: Tensor) -> Any:
    """Return a transformer whose modulation is constant; it takes over the blocks of the given one.

    Constants come from calling the modules, so an adapter that is not fused is included.

    Args:
        transformer: transformer of a known family; do not use it afterwards.
        t: the time it will always be called at. Time and guidance are taken as they are, whatever the transformer's
            number format, so pass them as training saw them (``AdapterConfig.condition``).
        guidance: guidance scale, if the transformer embeds one.
        pooled: pooled prompt embedding (1,P).

    Returns:
        The same function at (t, guidance, pooled), without the weights of modulation and embedder.

    Raises:
        ValueError: guidance is None, but the transformer embeds one.
    """
    if is_folded(transformer):
        return transformer
    fold_part(transformer, transformer, condition_of(transformer, t, guidance, pooled, transformer.dtype))
    return as_folded(transformer, t, guidance, pooled)


def condition_of(transformer: Any, t: float, guidance: float | None, pooled: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what all modulations are computed from; see ``fold``. Only the embedder needs to be in memory."""
    family = family_of(transformer)
    return family.condition(transformer, t, needed_guidance(transformer, guidance), pooled.to(dtype))


def fold_part(part: nn.Module, transformer: Any, condition: Tensor | None) -> None:
    """Replace all modulation below a part of a transformer by constants, in place."""
    family = family_of(transformer)
    replace_modules(part, lambda module: family.constant(module, condition))


def fingerprint(pooled: Tensor) -> str:
    """Return a hash of a pooled prompt, the same in every number format from bfloat16 on; empty if there is none."""
    if pooled.is_meta or not pooled.numel():
        return ""
    values = pooled.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy()
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def as_folded(transformer: Any, t: float, guidance: float | None, pooled: Tensor) -> Any:
    """Return the folded class around the parts of a transformer whose modulation is constant already."""
    family = family_of(transformer)
    known = signature(family.folded.__init__).parameters  # config.json may hold more than a class takes
    config = {key: value for key, value in transformer.config.items() if key in known}
    config |= {"folded_t": t, "folded_guidance": guidance, "folded_prompt": fingerprint(pooled)}
    with torch.device("meta"):
        folded: Any = family.folded(**config)
    for name, child in transformer.named_children():
        setattr(folded, name, child if name != family.embedder else NoCondition())
    for name in QUANTIZED:  # diffusers saves and moves by these
        if hasattr(transformer, name):
            setattr(folded, name, getattr(transformer, name))
    if "quantization_config" in transformer.config:
        folded.register_to_config(quantization_config=transformer.config.quantization_config)
    if getattr(transformer, "peft_config", None):  # an unfused adapter can still be scaled, switched and fused
        folded.peft_config, folded._hf_peft_config_loaded = transformer.peft_config, True
    return folded.train(transformer.training)
