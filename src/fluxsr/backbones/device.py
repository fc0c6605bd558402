"""Choose the device and the number format in which a model runs."""

from __future__ import annotations

import sys
from functools import cache
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.errors import InputError

GAIN = 0.8  # bfloat16 must take less than this fraction of float32's time, which is more exact
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def best_device(name: str | torch.device = "auto") -> torch.device:
    """Return the named device, or for "auto" the first that is available of cuda, xpu, mps and cpu.

    Raises:
        InputError: the device is unknown or not available.
    """
    backends = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.backends.mps}
    here = [kind for kind, backend in backends.items() if backend.is_available()] + ["cpu"]
    try:
        device = torch.device(here[0] if name == "auto" else name)
    except RuntimeError as error:
        raise InputError(f"no device is called '{name}'; choose from auto, {', '.join(here)}") from error
    if device.type not in here or (device.index or 0) >= max(1, getattr(torch, device.type).device_count()):
        raise InputError(f"device '{name}' is not available; this machine has {', '.join(here)}")
    return device


def best_dtype(device: torch.device, name: str | torch.dtype = "auto") -> torch.dtype:
    """Return the named number format, or the fastest one for the device; see ``choose_dtype``."""
    return choose_dtype(device, name)[0]


def choose_dtype(device: torch.device, name: str | torch.dtype = "auto") -> tuple[torch.dtype, str]:
    """Return a number format and the reason for the choice.

    The format is the named one, or for "auto" the one in which the device is fastest.

    Raises:
        InputError: the name is unknown, or is a torch.dtype that is not floating point.
    """
    if isinstance(name, torch.dtype) and name.is_floating_point:
        return name, "as asked for"
    if name in DTYPES:
        return DTYPES[name], "as asked for"
    if name != "auto":
        raise InputError(f"dtype '{name}' is not known; choose from auto, {', '.join(DTYPES)}")
    if device.type == "cpu":
        return _of_cpu()
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "this GPU computes in bfloat16"
        return torch.float16, "this GPU does not compute in bfloat16"
    return (torch.bfloat16 if device.type == "xpu" else torch.float32), f"the choice for {device.type}"


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a GPU in bytes, or None for devices that share the system's memory (CPU, Apple)."""
    if device.type in ("cuda", "xpu") and hasattr(getattr(torch, device.type), "mem_get_info"):
        return getattr(torch, device.type).mem_get_info(device)[0]
    return None


def peak_memory(device: torch.device) -> int | None:
    """Return the largest number of bytes that this process has had, on a GPU or in main memory; None on Windows."""
    if device.type in ("cuda", "xpu"):
        return getattr(torch, device.type).max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes there, KiB elsewhere


@cache
def _of_cpu() -> tuple[torch.dtype, str]:
    """Return the faster number format of this CPU and the reason. The result is cached per process.

    bfloat16 is faster with AMX. With AVX512-BF16 alone the result depends on the CPU and on PyTorch, so it is measured.
    """
    if _supported("_is_amx_tile_supported"):
        return torch.bfloat16, "this CPU has AMX"
    if not has_bf16_units():
        return torch.float32, "this CPU has neither AMX nor AVX512-BF16"
    whole, half = (milliseconds(dtype) for dtype in (torch.float32, torch.bfloat16))
    found = f"measured on this CPU: {half:.1f} ms in bfloat16, {whole:.1f} ms in float32"
    return (torch.bfloat16 if half < GAIN * whole else torch.float32), found


def has_bf16_units() -> bool:
    """Return whether this CPU has instructions for products in bfloat16."""
    return _supported("_is_amx_tile_supported") or _supported("_is_avx512_bf16_supported")


def _supported(check: str) -> bool:
    return bool(getattr(torch.cpu, check, lambda: False)())


@torch.no_grad()
def milliseconds(dtype: torch.dtype, rounds: int = 3) -> float:
    """Return the time in ms that the CPU needs for a convolution, a linear layer and an attention as in the models.

    The result is the minimum over ``rounds`` rounds, after one round of warm-up.
    """
    from fluxsr.backbones.attention import chunked_attention  # imports diffusers, which takes seconds

    pixels = torch.ones(1, 64, 64, 64, dtype=dtype).to(memory_format=torch.channels_last)
    kernel = torch.ones(64, 64, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    tokens, matrix = torch.ones(576, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
    heads = torch.ones(1, 576, 3, 128, dtype=dtype)
    attend = chunked_attention if dtype == torch.bfloat16 else _flash_attention
    taken = []
    for _ in range(rounds + 1):
        start = perf_counter()
        F.conv2d(pixels, kernel, padding=1)
        F.linear(tokens, matrix)
        attend(heads, heads, heads)
        taken.append(1000 * (perf_counter() - start))
    return min(taken[1:])


def _flash_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return PyTorch's attention for inputs (B,N,heads,d)."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)


def image_layout(device: torch.device) -> torch.memory_format:
    """Return the memory format for autoencoders. On an H100 FLUX's takes 1.5 times as long with channels_last."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format
