"""Fold a transformer: replace its modulation by constants. Check that a folded one fits its settings.

One-step inference never changes time, pooled text or guidance, so every modulation vector is a constant.
"""

from __future__ import annotations

import hashlib
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.backbones.families import family_of, is_folded
from fluxsr.backbones.family import NoCondition, replace_modules
from fluxsr.backbones.prompts import FixedPrompt, PromptEmbeddings
from fluxsr.backbones.velocity import needed_guidance
from fluxsr.errors import ModelError

QUANTIZED = ("hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_4bit")  # set on quantized models


def fold(transformer: Any, t: float, guidance: float | None, pooled: Tensor) -> Any:
    """Return a folded transformer, which takes over the blocks of the input.

    The constants are computed by calling the modules, so they include an adapter that is not fused.

    Args:
        transformer: transformer of a known family; do not use it afterwards.
        t: time of every later call. Time and guidance are not rounded to the transformer's number format, so pass them
            as training saw them (``AdapterConfig.condition``).
        guidance: guidance scale, if the transformer embeds one.
        pooled: pooled prompt embedding (1,P).

    Returns:
        A transformer with the same outputs at (t, guidance, pooled), without the weights of modulation and embedder.

    Raises:
        ValueError: guidance is None, but the transformer embeds one.
    """
    if is_folded(transformer):
        return transformer
    fold_part(transformer, transformer, condition_of(transformer, t, guidance, pooled, transformer.dtype))
    return as_folded(transformer, t, guidance, pooled)


def condition_of(transformer: Any, t: float, guidance: float | None, pooled: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the embedding that all modulations are computed from; see ``Family.condition`` and ``fold``."""
    family = family_of(transformer)
    return family.condition(transformer, t, needed_guidance(transformer, guidance), pooled.to(dtype))


def fold_part(part: nn.Module, transformer: Any, condition: Tensor | None) -> None:
    """Replace all modulation in a part of a transformer by constants, in place."""
    family = family_of(transformer)
    replace_modules(part, lambda module: family.constant(module, condition))


def fingerprint(pooled: Tensor) -> str:
    """Return a hash of a pooled prompt, or "" if it is empty. bfloat16 and all finer formats give the same hash."""
    if pooled.is_meta or not pooled.numel():
        return ""
    values = pooled.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy()
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def as_folded(transformer: Any, t: float, guidance: float | None, pooled: Tensor) -> Any:
    """Return the folded class with the parts of a transformer whose modulation is already constant."""
    family = family_of(transformer)
    known = signature(family.folded.__init__).parameters  # config.json may hold other keys
    config = {key: value for key, value in transformer.config.items() if key in known}
    config |= {"folded_t": t, "folded_guidance": guidance, "folded_prompt": fingerprint(pooled)}
    with torch.device("meta"):
        folded: Any = family.folded(**config)
    for name, child in transformer.named_children():
        setattr(folded, name, child if name != family.embedder else NoCondition())
    for name in QUANTIZED:  # diffusers reads these when it saves or moves a model
        if hasattr(transformer, name):
            setattr(folded, name, getattr(transformer, name))
    if "quantization_config" in transformer.config:
        folded.register_to_config(quantization_config=transformer.config.quantization_config)
    if getattr(transformer, "peft_config", None):  # so that an unfused adapter can still be scaled, disabled and fused
        folded.peft_config, folded._hf_peft_config_loaded = transformer.peft_config, True
    return folded.train(transformer.training)


def check_fit(transformer: Any, prompt: FixedPrompt | PromptEmbeddings, config: AdapterConfig, where: Any) -> None:
    """Check that a transformer, a fixed prompt and settings belong together.

    Args:
        transformer: transformer of a known family.
        prompt: fixed prompt.
        config: settings.
        where: name of the folder with prompt and settings, for messages.

    Raises:
        ModelError: the prompt has other widths, the guidance is missing, or the transformer is folded with other
            conditions.
    """
    family = family_of(transformer)
    wants = family.prompt_widths(transformer.config)
    has = (prompt.prompt_embeds.shape[-1], prompt.pooled_prompt_embeds.shape[-1])
    if wants != has:
        raise ModelError(f"the fixed prompt in {where} has widths {has}; this transformer needs {wants}")
    if family.embeds_guidance(transformer.config) and config.guidance is None:
        raise ModelError(f"{where} has no guidance, but this transformer embeds one; set guidance, for example to 3.5")
    if is_folded(transformer):
        at = (transformer.config.folded_t, transformer.config.folded_guidance)
        if at != config.condition:
            raise ModelError(
                f"the transformer is folded at t, guidance = {at}, but {where} needs {config.condition} "
                f"(rounded to {config.train_dtype} as in training); use the unfolded model"
            )
        if transformer.config.folded_prompt != fingerprint(prompt.pooled_prompt_embeds):
            raise ModelError(f"the transformer is folded with another prompt than {where} has; use the unfolded model")
