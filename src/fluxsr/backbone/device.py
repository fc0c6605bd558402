"""Which device and number format a model runs in."""

from __future__ import annotations

import torch

from fluxsr.errors import InputError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def best_device(name: str | torch.device = "auto") -> torch.device:
    """The named device, or the best there is: cuda, xpu, mps, cpu.

    Raises:
        InputError: a device that this PyTorch does not have.
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
    """The named number format, or bfloat16 where the device computes in it and float32 elsewhere.

    Raises:
        InputError: a name that is not known, or a torch.dtype that is not floating.
    """
    if isinstance(name, torch.dtype) and name.is_floating_point:
        return name
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise InputError(f"dtype '{name}' is not known; choose from auto, {', '.join(DTYPES)}")
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_has_bf16() else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "xpu" else torch.float32


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a GPU, in bytes; None where it is the system's own (CPU, Apple)."""
    if device.type in ("cuda", "xpu") and hasattr(getattr(torch, device.type), "mem_get_info"):
        return getattr(torch, device.type).mem_get_info(device)[0]
    return None


def _cpu_has_bf16() -> bool:
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
