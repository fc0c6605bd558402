"""Shared by benchmarks: random models of FLUX.1-dev's or klein's size, the clock, and the machine's description."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel
from torch.utils.flop_counter import FlopCounterMode

from fluxsr.backbones import latents
from fluxsr.backbones.families import family_of, known_class
from fluxsr.backbones.parts import part_config
from fluxsr.backbones.prompts import FixedPrompt
from fluxsr.backbones.single_file import flux_dev

PACKAGES = ("torch", "triton", "diffusers", "transformers", "accelerate", "torchao", "bitsandbytes")
BASES = {"flux": flux_dev(), "klein": flux_dev().with_name("klein_4b")}  # folders with configurations
TINY: dict[str, dict[str, Any]] = {
    "transformer": {
        **{"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1},
        **{"joint_attention_dim": 64, "pooled_projection_dim": 64},
    },
    "vae": {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 8},
}


def config(part: str, tiny: bool = False, base: str = "flux") -> dict[str, Any]:
    """Return the configuration of a base's transformer or vae, with small sizes if ``tiny``."""
    full = part_config(BASES[base], part)
    return full | {key: value for key, value in TINY[part].items() if tiny and key in full}


def transformer(device: torch.device, tiny: bool = False, base: str = "flux") -> Any:
    """Return an unfolded transformer; torch's initial weights keep its activations finite."""
    return _made(config("transformer", tiny, base), "transformer", device)


def autoencoder(device: torch.device, tiny: bool = False, base: str = "flux") -> Any:
    """Return a base's autoencoder."""
    return _made(config("vae", tiny, base), "vae", device)


def prompt(device: torch.device, tokens: int = 512, tiny: bool = False, base: str = "flux") -> FixedPrompt:
    """Return random prompt embeddings."""
    shape, generator = config("transformer", tiny, base), torch.Generator().manual_seed(0)
    width, pooled_width = family_of(shape).prompt_widths(shape)
    # drawn first, so that it is the same for any number of tokens
    pooled = torch.randn(1, pooled_width, generator=generator)
    embeds = torch.randn(1, tokens, width, generator=generator)
    return FixedPrompt(embeds, pooled).to(device)


def _made(settings: dict[str, Any], part: str, device: torch.device) -> Any:
    """Build a model in bfloat16 on the device itself, so that no second copy exists."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)  # float32 first would take twice the memory
    try:
        with device:
            return known_class(part, settings).from_config(settings).eval().requires_grad_(False)
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
    """Return the FLOPs of the blocks for a square tile: 24 or 26 n d^2 in linears and 4 n^2 d in attention, each."""
    n, d = (side // 16) ** 2 + tokens, transformer.inner_dim
    linears = 26 if isinstance(transformer, Flux2Transformer2DModel) else 24  # FLUX.2's gated layers are wider
    blocks = len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks)
    return blocks * (linears * n * d**2 + 4 * n**2 * d)


@torch.no_grad()
def autoencoder_flop(side: int, tiny: bool = False, base: str = "flux") -> int:
    """Return the FLOPs of encoding and decoding a square tile, counted on the meta device."""
    meta = torch.device("meta")
    vae = autoencoder(meta, tiny, base)
    with FlopCounterMode(display=False) as counter:
        latents.decode(vae, latents.encode(vae, torch.empty(1, 3, side, side, device=meta)))
    return counter.get_total_flops()


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
