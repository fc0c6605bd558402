"""Weights in fewer bits."""

from __future__ import annotations

import importlib.util
from typing import Any

import diffusers
import torch

from fluxsr.errors import InputError


def nf4(device: torch.device, dtype: torch.dtype) -> Any:
    """4-bit normal float with double quantization, about 4.1 bits a weight, as QLoRA has it; computes in ``dtype``.

    Raises:
        InputError: bitsandbytes is not installed, or the device is no GPU.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("a base in nf4 needs bitsandbytes; install it with `pip install 'fluxsr[nf4]'`")
    if device.type not in ("cuda", "xpu"):
        raise InputError(f"a base in nf4 needs a GPU, this is '{device.type}'; take quantize_base: none")
    return diffusers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def nf4_in_place(model: Any, dtype: torch.dtype) -> None:
    """Put every linear of a model on a GPU into nf4 where it stands, one at a time: no second copy is held.

    For weights that come from no file (benchmarks); ``load_base`` quantizes while it reads.
    """
    import bitsandbytes as bnb

    linears = [(name, m) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    for name, linear in linears:
        small = bnb.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=dtype,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        weight = linear.weight.data
        small.weight = bnb.nn.Params4bit(weight.cpu(), requires_grad=False, compress_statistics=True, quant_type="nf4")
        small.bias = linear.bias
        model.set_submodule(name, small.to(weight.device))
