"""Quantize the weights of linear layers with torchao (int8, fp8) or bitsandbytes (nf4)."""

from __future__ import annotations

import importlib.util
from typing import Any

import diffusers
import torch
from diffusers.quantizers import DiffusersAutoQuantizer

from fluxsr.errors import InputError, needed

KINDS = ("none", "int8", "fp8", "nf4")


def scheme_of(kind: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Return diffusers' quantization configuration for a kind, or None for "none". Products are computed in ``dtype``.

    Raises:
        InputError: the kind is unknown, its package is not installed, or the device does not support it.
    """
    if kind not in KINDS:
        raise InputError(f"quantize is '{kind}'; choose one of {', '.join(KINDS)}")
    if kind == "none":
        return None
    if kind == "nf4":
        return nf4(device, dtype)
    needed(kind, "torchao", "torchao")
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return diffusers.TorchAoConfig({"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}[kind]())


def kinds_here(device: torch.device) -> tuple[str, ...]:
    """Return the kinds of quantization that a device supports and whose packages are installed."""
    torchao = ("int8", "fp8") if importlib.util.find_spec("torchao") is not None else ()
    gpu = device.type in ("cuda", "xpu") and importlib.util.find_spec("bitsandbytes") is not None
    return (*torchao, "nf4") if gpu else torchao


def nf4(device: torch.device, dtype: torch.dtype) -> Any:
    """Return diffusers' configuration for QLoRA's 4-bit normal float with double quantization.

    Raises:
        InputError: bitsandbytes is not installed, or the device is not a GPU.
    """
    if device.type not in ("cuda", "xpu"):
        raise InputError(f"nf4 needs a GPU, but the device is '{device.type}'; use none (quantize_base, --quantize)")
    needed("nf4", "nf4", "bitsandbytes")
    return diffusers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def quantize_(module: torch.nn.Module, scheme: Any) -> None:
    """Quantize the linear layers of a transformer or of one of its blocks, in place. Call ``declare`` at the end."""
    if scheme is None:
        return
    if isinstance(scheme, diffusers.BitsAndBytesConfig):
        nf4_in_place(module, scheme.bnb_4bit_compute_dtype)
        return
    from torchao.quantization import quantize_ as by_torchao

    by_torchao(module, scheme.quant_type)


def declare(transformer: Any, scheme: Any) -> None:
    """Mark a transformer as quantized, so that diffusers saves and loads it accordingly."""
    if scheme is None:
        return
    transformer.register_to_config(quantization_config=scheme)
    transformer.hf_quantizer = DiffusersAutoQuantizer.from_config(scheme, pre_quantized=True)
    transformer.hf_quantizer.validate_environment()  # also sets attributes that saving needs
    transformer.is_quantized, transformer.quantization_method = True, scheme.quant_method
    if isinstance(scheme, diffusers.BitsAndBytesConfig):
        transformer.is_loaded_in_4bit = True


def compute_in(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Set the number format in which torchao's weights below a module compute, because ``to`` does not change it."""
    for layer in module.modules():
        weight: Any = layer._parameters.get("weight")
        if weight is None or weight.dtype == dtype or not hasattr(weight, "__tensor_flatten__"):
            continue
        names, context = weight.__tensor_flatten__()
        tensors = {name: getattr(weight, name) for name in names}
        cast = type(weight).__tensor_unflatten__(tensors, context | {"dtype": dtype}, weight.shape, weight.stride())
        layer.weight = torch.nn.Parameter(cast, requires_grad=False)


def is_quantized(transformer: Any) -> bool:
    """Return whether the weights of a transformer are quantized. No LoRA can be merged into such weights."""
    return getattr(transformer, "hf_quantizer", None) is not None


def nf4_in_place(model: Any, dtype: torch.dtype) -> None:
    """Quantize the linear layers of a model on a GPU to nf4, one at a time, to avoid a second copy of the model."""
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
