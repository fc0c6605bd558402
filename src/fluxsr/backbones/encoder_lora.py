"""LoRA of an autoencoder's encoder, convolutions included: read, check, merge, train and save it.

Our file, ``vae_encoder_lora.safetensors``, holds ``encoder.<layer>.lora_A.weight`` and ``lora_B.weight``, whose product
is added to the layer's weight as it is: the scale alpha / rank is part of B.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fluxsr.backbones.places import ENCODER_FILE, PEFT_FILES
from fluxsr.errors import ModelError, first_line, needed

_PEFT_PREFIX = "base_model.model."

Pairs = dict[str, tuple[Tensor, Tensor]]
"""The layers of an encoder's LoRA by name: A (rank, in, ...) and B (out, rank, ...), with the scale in B."""


def encoder_file(folder: str | Path) -> Path | None:
    """Return the file with the LoRA of the encoder in an adapter's folder; None if there is none."""
    file = Path(folder, ENCODER_FILE)
    return file if file.is_file() else None


def read_encoder_lora(path: Path) -> Pairs:
    """Read our file, or the ``adapter_model.safetensors`` that PEFT writes for an encoder.

    Raises:
        ModelError: the file cannot be read, or holds more than pairs of matrices.
    """
    try:
        state = load_file(path)
        config = path.with_name(PEFT_FILES[1])
        peft = json.loads(config.read_text(encoding="utf-8")) if path.name == PEFT_FILES[0] else {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"encoder LoRA {path} cannot be read: {first_line(error)}") from error
    pairs: Pairs = {}
    for key in sorted(state):
        name, end, _ = key.partition(".lora_A.weight")
        if not key.endswith((".lora_A.weight", ".lora_B.weight")):
            raise ModelError(f"encoder LoRA {path} holds '{key}'; only pairs of lora_A and lora_B are read")
        other = key.replace(".lora_A.", ".lora_B.") if end else key.replace(".lora_B.", ".lora_A.")
        if other not in state:
            raise ModelError(f"encoder LoRA {path} lacks '{other}'; the file is incomplete")
        if end:
            layer = name.removeprefix(_PEFT_PREFIX)
            scale = _scale(peft, layer, len(state[key])) if peft else 1.0
            up = state[other] if scale == 1 else state[other].float() * scale
            pairs[layer.removeprefix("encoder.")] = state[key], up
    return pairs


def _scale(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """Return the factor of a layer's product, from the configuration that PEFT wrote."""
    needed("this LoRA of PEFT", "flux", "peft")
    from peft.utils.other import get_pattern_key

    alphas = config.get("alpha_pattern") or {}  # its keys name layers as PEFT saw them, with or without "encoder."
    alpha = alphas.get(get_pattern_key(alphas, layer), config.get("lora_alpha") or rank)
    return float(alpha / (rank**0.5 if config.get("use_rslora") else rank))


def save_encoder_lora(pairs: Pairs, folder: str | Path) -> None:
    """Write ``vae_encoder_lora.safetensors`` into an adapter's folder."""
    state: dict[str, Tensor] = {}
    for name, (down, up) in pairs.items():
        state |= {f"encoder.{name}.lora_A.weight": down.contiguous(), f"encoder.{name}.lora_B.weight": up.contiguous()}
    save_file(state, Path(folder, ENCODER_FILE))


def check_encoder_lora(vae: Any, pairs: Pairs, path: Path | str) -> None:
    """Check that every layer of a LoRA is in the encoder and has its size.

    Raises:
        ModelError: a layer is missing or has another size, or there is no layer.
    """
    layers = dict(vae.encoder.named_modules())
    if not pairs:
        raise ModelError(f"encoder LoRA {path} holds no weights")
    for name, (down, up) in pairs.items():
        weight = getattr(layers.get(name), "weight", None)
        if weight is None:
            raise ModelError(f"encoder LoRA {path} adapts '{name}', which this autoencoder's encoder does not have")
        # A has the layer's kernel, B is 1 x 1
        if (*up.shape[:1], *down.shape[1:]) != tuple(weight.shape) or up.flatten(1).shape[1] != len(down):
            raise ModelError(
                f"encoder LoRA {path}: '{name}' has lora_A {[*down.shape]} and lora_B {[*up.shape]}; "
                f"the encoder's layer has the weight {[*weight.shape]}"
            )


@torch.no_grad()
def fuse_encoder_lora(vae: Any, path: Path) -> None:
    """Merge the LoRA of a file into an autoencoder's encoder, in place; the sum is rounded once.

    Raises:
        ModelError: the file cannot be read or does not fit.
    """
    pairs = read_encoder_lora(path)
    check_encoder_lora(vae, pairs, path)
    for name, (down, up) in pairs.items():
        weight = vae.encoder.get_submodule(name).weight
        product = up.to(weight.device).float().flatten(1) @ down.to(weight.device).float().flatten(1)
        weight.copy_(weight.float() + product.view_as(weight))


def add_encoder_lora(vae: Any, rank: int, alpha: float) -> None:
    """Add a trainable LoRA in float32 to an encoder: to all linear layers and all convolutions without groups."""
    from peft import LoraConfig, inject_adapter_in_model

    layers = [
        name
        for name, layer in vae.encoder.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    ]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, init_lora_weights="gaussian")
    inject_adapter_in_model(config, vae.encoder)
    for parameter in vae.encoder.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def encoder_lora(vae: Any, dtype: torch.dtype = torch.bfloat16) -> Pairs:
    """Return the LoRA that ``add_encoder_lora`` added; empty if there is none."""
    pairs: Pairs = {}
    for name, layer in _adapted(vae).items():
        (key,) = layer.active_adapters
        down, up = (part[key].weight.detach().float() for part in (layer.lora_A, layer.lora_B))
        pairs[name] = down.to(dtype), (up * layer.scaling[key]).to(dtype)
    return pairs


def remove_encoder_lora(vae: Any) -> None:
    """Remove the LoRA that ``add_encoder_lora`` added; no-op if there is none."""
    from diffusers.utils import recurse_remove_peft_layers

    recurse_remove_peft_layers(vae.encoder)


@contextmanager
def without_encoder_lora(vae: Any) -> Iterator[None]:
    """Context manager in which the LoRA that ``add_encoder_lora`` added has no effect."""
    layers = _adapted(vae).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _adapted(vae: Any) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: layer for name, layer in vae.encoder.named_modules() if isinstance(layer, BaseTunerLayer)}
