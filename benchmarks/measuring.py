"""Shared by benchmarks: models of FLUX.1-dev's size with random weights, the clock, and the machine's description."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel

from fluxsr.backbones.prompts import FixedPrompt

PACKAGES = ("torch", "triton", "diffusers", "transformers", "accelerate", "torchao", "bitsandbytes")
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
    """Return an unfolded FluxTransformer2DModel; torch's initial weights keep its activations finite."""
    return _made(lambda: FluxTransformer2DModel(**(TINY if tiny else FLUX_DEV)), device)


def autoencoder(device: torch.device, tiny: bool = False) -> Any:
    """Return FLUX's AutoencoderKL."""

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
    """Return random prompt embeddings."""
    shape, generator = TINY if tiny else FLUX_DEV, torch.Generator().manual_seed(0)
    # drawn first, so that it is the same for any number of tokens
    pooled = torch.randn(1, shape.get("pooled_projection_dim", 768), generator=generator)
    embeds = torch.randn(1, tokens, shape.get("joint_attention_dim", 4096), generator=generator)
    return FixedPrompt(embeds, pooled).to(device)


def _made(build: Callable[[], Any], device: torch.device) -> Any:
    """Build a model in bfloat16 on the device itself, so that no second copy exists."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)  # float32 first would take twice the memory
    try:
        with device:
            return build().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Return the duration of one call, between device events on a GPU."""
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def transformer_flop(transformer: Any, side: int, tokens: int) -> int:
    """Return the FLOPs of the blocks for a square tile: 24 n d^2 in linears and 4 n^2 d in attention, each."""
    n, d = (side // 16) ** 2 + tokens, transformer.inner_dim
    blocks = len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks)
    return blocks * (24 * n * d**2 + 4 * n**2 * d)


@torch.no_grad()
def ceiling(device: torch.device) -> float:
    """Return the FLOP/s of plain bfloat16 matrix products."""
    n, count = (8192, 100) if device.type == "cuda" else (256, 2)
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    torch.matmul(a, b)  # warm-up
    return 2 * n**3 * count / seconds(lambda: [torch.matmul(a, b) for _ in range(count)], device)


def environment(device: torch.device) -> dict[str, Any]:
    """Describe the device and the versions that matter."""
    versions = {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": name, "versions": versions, "ceiling_tflop_per_s": ceiling(device) / 1e12}
