"""FLUX.1-dev's architecture with random weights in bfloat16, made on the device itself: no download, no second copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel

from fluxsr.backbone.prompts import FixedPrompt

FLUX_DEV: dict[str, Any] = {"guidance_embeds": True}  # transformer/config.json; the rest are diffusers' defaults
TINY: dict[str, Any] = {
    "guidance_embeds": True,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_attention_heads": 1,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 64,
}


def transformer(device: torch.device, tiny: bool = False) -> Any:
    """FluxTransformer2DModel, unfolded; torch's own initial weights keep its activations finite."""
    return _made(lambda: FluxTransformer2DModel(**(TINY if tiny else FLUX_DEV)), device)


def autoencoder(device: torch.device, tiny: bool = False) -> Any:
    """FLUX's AutoencoderKL in the memory format that the pipeline's loader gives it."""

    def vae() -> Any:
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8) if tiny else (128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=16,
            norm_num_groups=8 if tiny else 32,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )

    return _made(vae, device)


def prompt(device: torch.device, tokens: int = 512, tiny: bool = False) -> FixedPrompt:
    shape, generator = TINY if tiny else FLUX_DEV, torch.Generator().manual_seed(0)
    embeds = torch.randn(1, tokens, shape.get("joint_attention_dim", 4096), generator=generator)
    pooled = torch.randn(1, shape.get("pooled_projection_dim", 768), generator=generator)
    return FixedPrompt(embeds, pooled).to(device)


def _made(build: Callable[[], Any], device: torch.device) -> Any:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)  # float32 first would take twice the memory
    try:
        with device:
            return build().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)
