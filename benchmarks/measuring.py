"""What benchmarks at full size measure with: seconds, FLOPs, and what ran where."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import random_flux
import torch
from torch.utils.flop_counter import FlopCounterMode

from fluxsr.backbone import latents

RUNS, PATIENCE = 3, 3.0  # calls of a measurement; seconds after which no further one is begun
PACKAGES = ("torch", "triton", "diffusers", "transformers", "accelerate", "torchao", "bitsandbytes")


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Of one call, between device events where there are some."""
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


def repeated(call: Callable[[], Any], device: torch.device) -> list[float]:
    times: list[float] = []
    while len(times) < RUNS and sum(times) < PATIENCE:
        times.append(seconds(call, device))
    return times


def kernels(call: Callable[[], Any], most: int = 40) -> list[dict[str, Any]]:
    """The kernels that took longest in one call on a GPU: name, calls, milliseconds; or why nobody knows."""
    try:
        return _profiled(call, most)
    except Exception as error:  # the profiler fails on some machines, and a row is worth more
        return [{"name": f"{type(error).__name__}: {error}", "calls": 0, "ms": 0.0}]


def _profiled(call: Callable[[], Any], most: int) -> list[dict[str, Any]]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    taken = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)[:most]
    return [{"name": e.key[:120], "calls": e.count, "ms": e.self_device_time_total / 1000} for e in taken]


@torch.no_grad()
def ceiling(device: torch.device) -> float:
    """FLOP/s of plain bfloat16 matrix products."""
    n, count = (8192, 100) if device.type == "cuda" else (256, 2)
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = a @ b

    def products() -> None:
        for _ in range(count):
            torch.matmul(a, b, out=out)

    products()
    return 2 * n**3 * count / seconds(products, device)


@lru_cache
def vae_flop(side: int, tiny: bool) -> int:
    """Of encoding and decoding a square tile, counted on the meta device."""
    meta = torch.device("meta")
    vae = random_flux.autoencoder(meta, tiny)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        latents.encode(vae, torch.empty(1, 3, side, side, device=meta))
        latents.decode(vae, torch.empty(1, 16, side // 8, side // 8, device=meta))
    return counter.get_total_flops()


def transformer_flop(transformer: Any, side: int, tokens: int) -> int:
    """Of the blocks for a square tile: 24 n d^2 in linears and 4 n^2 d in attention, each."""
    n, d = (side // 16) ** 2 + tokens, transformer.inner_dim
    blocks = len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks)
    return blocks * (24 * n * d**2 + 4 * n**2 * d)


def environment(device: torch.device) -> dict[str, Any]:
    versions: dict[str, str] = {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": name, "versions": versions, "ceiling_tflop_per_s": ceiling(device) / 1e12}
