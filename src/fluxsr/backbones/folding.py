"""Folding: in one-step use, time, pooled text and guidance never change, so every modulation vector is a constant."""

from __future__ import annotations

import hashlib
from inspect import signature
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero, AdaLayerNormZeroSingle
from torch import Tensor, nn

QUANTIZED = ("hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_4bit")  # what marks small weights


class ConstantAdaLN(nn.Module):
    """Stands in for AdaLayerNormZero (6 chunks), AdaLayerNormZeroSingle (3) and AdaLayerNormContinuous (2)."""

    modulation: Tensor

    def __init__(self, width: int, chunks: int, modulation: Tensor | None = None):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        empty = torch.zeros(1, chunks * width)
        self.register_buffer("modulation", empty if modulation is None else modulation.detach().reshape(1, -1).clone())
        self.chunks = chunks

    def forward(self, x: Tensor, emb: Tensor | None = None, **_: Any) -> Any:
        parts = self.modulation.to(x.dtype).chunk(self.chunks, dim=1)
        # AdaLayerNormContinuous has the scale first.
        scale, shift = parts[:2] if self.chunks == 2 else (parts[1], parts[0])
        x = self.norm(x) * (1 + scale[:, None]) + shift[:, None]
        return x if self.chunks == 2 else (x, *parts[2:])


class NoCondition(nn.Module):
    """Stands in for the embedder of time, text and guidance, whose output nothing reads any more."""

    def forward(self, *_: Any) -> None:
        return None


class FoldedFluxTransformer2DModel(FluxTransformer2DModel):
    """FluxTransformer2DModel at one fixed time, pooled text and guidance; saves and loads like any other."""

    __module__ = "fluxsr"  # where diffusers looks for the class when it loads a pipeline

    @register_to_config
    def __init__(
        self,
        patch_size: int = 1,
        in_channels: int = 64,
        out_channels: int | None = None,
        num_layers: int = 19,
        num_single_layers: int = 38,
        attention_head_dim: int = 128,
        num_attention_heads: int = 24,
        joint_attention_dim: int = 4096,
        pooled_projection_dim: int = 768,
        guidance_embeds: bool = False,
        axes_dims_rope: tuple[int, ...] = (16, 56, 56),
        folded_t: float = 0.0,
        folded_guidance: float | None = None,
        folded_prompt: str = "",
    ):
        super().__init__(  # by keyword: diffusers would note others as defaults, and from_config replace them
            patch_size=patch_size,
            in_channels=in_channels,
            out_channels=out_channels,
            num_layers=num_layers,
            num_single_layers=num_single_layers,
            attention_head_dim=attention_head_dim,
            num_attention_heads=num_attention_heads,
            joint_attention_dim=joint_attention_dim,
            pooled_projection_dim=pooled_projection_dim,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=axes_dims_rope,
        )
        fold_norms(self, None)
        self.time_text_embed = NoCondition()


def fold(transformer: Any, t: float, guidance: float | None, pooled: Tensor) -> FoldedFluxTransformer2DModel:
    """A transformer whose modulation is constant; it takes over the blocks of the given one.

    Constants come from calling the modules, so an unfused adapter is honoured.

    Args:
        transformer: FluxTransformer2DModel; do not use it afterwards.
        t: the time it will always be called at; time and guidance are taken as they are, whatever the transformer's
            number format, so pass them as training saw them (``AdapterConfig.condition``).
        guidance: distilled guidance scale, where the transformer embeds one.
        pooled: pooled prompt embedding (1,P).

    Returns:
        The same function at (t, guidance, pooled), without modulation and embedder weights.

    Raises:
        ValueError: guidance is None, but the transformer embeds one.
    """
    if isinstance(transformer, FoldedFluxTransformer2DModel):
        return transformer
    fold_norms(transformer, condition_of(transformer, t, guidance, pooled, transformer.dtype))
    return as_folded(transformer, t, guidance, pooled)


@torch.no_grad()
def condition_of(transformer: Any, t: float, guidance: float | None, pooled: Tensor, dtype: torch.dtype) -> Tensor:
    """The embedding (1,width) of time, guidance and pooled text that every modulation is computed from.

    Only the transformer's ``time_text_embed`` needs to be in memory; arguments and errors are those of ``fold``.
    """
    embeds = transformer.config.guidance_embeds
    if embeds and guidance is None:
        raise ValueError("guidance is None, but this transformer embeds a guidance scale; pass one (FLUX.1-dev: 3.5)")
    scales = [t, guidance] if embeds else [t]  # in the order of the embedder's arguments
    return transformer.time_text_embed(
        *(torch.tensor([scale], device=pooled.device) * 1000 for scale in scales), pooled.to(dtype)
    )


@torch.no_grad()
def fold_norms(module: nn.Module, condition: Tensor | None) -> None:
    """Replace all adaptive norms below a module by constant ones, in place.

    Args:
        module: a transformer, or a part of it, whose weights are in memory.
        condition: of ``condition_of``; None leaves the constants at zero, to be loaded.
    """
    for parent in list(module.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, (AdaLayerNormZero, AdaLayerNormZeroSingle, AdaLayerNormContinuous)):
                width = norm.norm.normalized_shape[0]
                modulation = None if condition is None else norm.linear(norm.silu(condition))
                setattr(parent, name, ConstantAdaLN(width, norm.linear.out_features // width, modulation))


def fingerprint(pooled: Tensor) -> str:
    """A mark of a pooled prompt, the same in every number format from bfloat16 on; empty on the meta device."""
    if pooled.is_meta:
        return ""
    return hashlib.sha256(pooled.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes()).hexdigest()[
        :16
    ]


def as_folded(transformer: Any, t: float, guidance: float | None, pooled: Tensor) -> FoldedFluxTransformer2DModel:
    """The folded class around the parts of a transformer whose norms are constant already."""
    known = signature(FoldedFluxTransformer2DModel.__init__).parameters  # config.json may hold more than a class takes
    config = {key: value for key, value in transformer.config.items() if key in known}
    config |= {"folded_t": t, "folded_guidance": guidance, "folded_prompt": fingerprint(pooled)}
    with torch.device("meta"):
        folded = FoldedFluxTransformer2DModel(**config)
    for name, child in transformer.named_children():
        setattr(folded, name, child if name != "time_text_embed" else NoCondition())
    for name in QUANTIZED:  # diffusers saves and moves by these
        if hasattr(transformer, name):
            setattr(folded, name, getattr(transformer, name))
    if "quantization_config" in transformer.config:
        folded.register_to_config(quantization_config=transformer.config.quantization_config)
    if getattr(transformer, "peft_config", None):  # an unfused adapter can still be scaled, switched and fused
        folded.peft_config, folded._hf_peft_config_loaded = transformer.peft_config, True
    return folded.train(transformer.training)
