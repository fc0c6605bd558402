"""Folding: in one-step use, time, pooled text and guidance never change, so every modulation vector is a constant."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


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
    ):
        super().__init__(
            patch_size, in_channels, out_channels, num_layers, num_single_layers, attention_head_dim,
            num_attention_heads, joint_attention_dim, pooled_projection_dim, guidance_embeds, axes_dims_rope,
        )  # fmt: skip
        _replace(self, {})


def fold(transformer: Any, t: float, guidance: float | None, pooled: Tensor) -> FoldedFluxTransformer2DModel:
    """A transformer whose modulation is constant; it takes over the blocks of the given one.

    Constants come from calling the modules, so an unfused adapter is honoured.

    Args:
        transformer: FluxTransformer2DModel; do not use it afterwards.
        t: the time it will always be called at.
        guidance: distilled guidance scale, where the transformer embeds one.
        pooled: pooled prompt embedding (1,P).

    Returns:
        The same function at (t, guidance, pooled), without modulation and embedder weights.

    Raises:
        ValueError: guidance is None, but the transformer embeds one.
    """
    if isinstance(transformer, FoldedFluxTransformer2DModel):
        return transformer
    if transformer.config.guidance_embeds and guidance is None:
        raise ValueError("guidance is None, but this transformer embeds a guidance scale; pass one (FLUX.1-dev: 3.5)")
    dtype, device = transformer.dtype, pooled.device
    with torch.no_grad():
        time = torch.tensor([t], device=device).to(dtype) * 1000
        arguments = [pooled.to(dtype)]
        if transformer.config.guidance_embeds:
            arguments.insert(0, torch.tensor([guidance], device=device).to(dtype) * 1000)
        condition = transformer.time_text_embed(time, *arguments)
        constants = {
            name: module.linear(module.silu(condition))
            for name, module in transformer.named_modules()
            if name.endswith(("norm1", "norm1_context", ".norm", "norm_out")) and hasattr(module, "linear")
        }
    known = signature(FoldedFluxTransformer2DModel.__init__).parameters  # config.json may hold more than a class takes
    config = {key: value for key, value in transformer.config.items() if key in known}
    with torch.device("meta"):
        folded = FoldedFluxTransformer2DModel(**config | {"folded_t": t, "folded_guidance": guidance})
    for name, child in transformer.named_children():
        setattr(folded, name, child)
    _replace(folded, constants)
    if getattr(transformer, "peft_config", None):  # an unfused adapter can still be scaled, switched and fused
        folded.peft_config, folded._hf_peft_config_loaded = transformer.peft_config, True
    return folded.train(transformer.training)


def _replace(transformer: Any, constants: dict[str, Tensor]) -> None:
    width = transformer.inner_dim

    def constant(name: str, chunks: int) -> ConstantAdaLN:
        return ConstantAdaLN(width, chunks, constants.get(name))

    for i, block in enumerate(transformer.transformer_blocks):
        block.norm1 = constant(f"transformer_blocks.{i}.norm1", 6)
        block.norm1_context = constant(f"transformer_blocks.{i}.norm1_context", 6)
    for i, block in enumerate(transformer.single_transformer_blocks):
        block.norm = constant(f"single_transformer_blocks.{i}.norm", 3)
    transformer.norm_out = constant("norm_out", 2)
    transformer.time_text_embed = NoCondition()
