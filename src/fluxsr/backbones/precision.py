"""Run a model in float32 for a while, where 16 bits overflow or round too much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_HALVES = (torch.bfloat16, torch.float16)


@contextmanager
def in_float32(*modules: Any, device: torch.device) -> Iterator[None]:
    """Hold the 16-bit weights of modules in float32. Afterwards they have their former format and values.

    A module that is quantized or offloaded is left as it is: its weights are no plain tensors on the device.
    """
    cast = list[tuple[Tensor, torch.dtype]]()
    try:
        for module in modules:
            weights = [*module.parameters(), *module.buffers()]
            if all(_is_plain(weight, device) for weight in weights):
                for weight in weights:
                    if weight.dtype in _HALVES:
                        cast.append((weight, weight.dtype))
                        weight.data = weight.data.float()
        yield
    finally:
        for weight, dtype in cast:
            weight.data = weight.data.to(dtype)


def _is_plain(weight: Tensor, device: torch.device) -> bool:
    return type(weight.data) is Tensor and weight.device.type == device.type and weight.dtype.is_floating_point
