"""Load a model from a folder in diffusers layout, a file or the Hub, with or without an adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from fluxsr.backbones import compiling
from fluxsr.backbones.adapter import CONFIG_FILE, AdapterConfig, load_config
from fluxsr.backbones.assemble import assemble
from fluxsr.backbones.attention import attend_by_chunks
from fluxsr.backbones.autoencoder import decoder_share, empty_autoencoder, load_replacement
from fluxsr.backbones.device import best_device, best_dtype, free_bytes, has_bf16_units, image_layout
from fluxsr.backbones.encoder_lora import encoder_file, fuse_encoder_lora
from fluxsr.backbones.families import family_of, is_folded
from fluxsr.backbones.folding import check_fit
from fluxsr.backbones.lora import lora_file
from fluxsr.backbones.memory import BITS, Needs, Plan, plan
from fluxsr.backbones.parts import in_flight, load_part, parameter_count, part_config, skeleton
from fluxsr.backbones.places import (
    BUNDLED,
    COMPONENT_FILE,
    COMPONENT_FOLDER,
    ENCODER_FILE,
    INDEX_FILE,
    PEFT_FILES,
    WEIGHTS_FILE,
    download,
    folder_of,
    public_name,
)
from fluxsr.backbones.prompts import FILE, FixedPrompt, load_prompt
from fluxsr.backbones.quantize import kinds_here, nf4, scheme_of
from fluxsr.backbones.single_file import check_family, flux_dev, is_gguf, load_autoencoder_for, single_file
from fluxsr.errors import InputError, ModelError

ADAPTER_FILES = [
    *(CONFIG_FILE, WEIGHTS_FILE, *PEFT_FILES, ENCODER_FILE, FILE, "t5_embedding.pth", "clip_embedding.pth"),
    *(COMPONENT_FILE, f"{COMPONENT_FOLDER}/config.json", INDEX_FILE),
    *("NOTICE", "LICENSE", "LICENSE.md", "LICENSE.txt"),  # copied by fluxsr export and push
]


@dataclass
class Backbone:
    """The components and settings of a loaded model."""

    transformer: Any
    vae: Any
    prompt: FixedPrompt
    config: AdapterConfig = field(default_factory=AdapterConfig)
    name: str = ""
    sources: tuple[str, str] = ("", "")  # names of model and adapter without local folders; the adapter may be "none"


def load(
    model: str | Path = BUNDLED,
    adapter: str | PathLike[str] | bool | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    folded: bool = True,
    fused: bool = True,
    quantize: str = "none",
    offload: bool = False,
    config_folder: str | Path | None = None,
    compiled: bool = False,
    vae: str | PathLike[str] | None = None,
) -> Backbone:
    """Load a model for inference onto a device, with fused adapter, folded modulation and quantized weights.

    The adapter is fused before quantization, because quantized weights would lose its small changes. If the weights are
    already quantized, the adapter's LoRA is attached beside them.

    Args:
        model, config_folder, vae: see ``fluxsr.load``.
        adapter: see ``fluxsr.load``. Even if it is False, prompt and settings come from the folder of the adapter.
        device: device, or its name.
        dtype: number format, or its name.
        folded: replace the modulation by constants.
        fused: fuse the adapter's LoRA; False leaves it out, for ``fluxsr export --no-fuse``.
        quantize: "none", "int8", "fp8" or "nf4" (quantize.py).
        offload: keep the transformer in host memory and move its blocks to the device one by one.
        compiled: compile the model, see ``compiling.compile_``. An offloaded transformer is not compiled.

    Raises:
        ModelError: a part is missing or does not fit.
        InputError: the device, dtype or quantization is unknown or not available.
    """
    device = best_device(device) if isinstance(device, str) else device
    dtype = best_dtype(device, dtype) if isinstance(dtype, str) else dtype
    scheme = scheme_of(quantize, device, dtype)
    folder, file = source_of(model, config_folder)
    adapted = adapter_folder(folder, file, adapter)
    config, prompt = load_config(adapted), load_prompt(adapted)
    lora = None if adapter is False else lora_file(adapted)
    if adapter not in (None, False) and lora is None:
        raise ModelError(f"no {WEIGHTS_FILE} in {adapted}; expected the folder of an adapter")
    empty = skeleton(part_config(folder, "transformer"))
    check_fit(empty, prompt, config, adapted)
    home = torch.device("cpu") if offload else device  # device that holds the transformer's weights
    if vae:
        autoencoder = load_replacement(folder, vae, dtype)
    else:
        autoencoder = load_autoencoder_for(file, Path(folder), dtype) if file else load_part(folder, "vae", dtype)
    if fused and adapter is not False and (encoder := encoder_file(adapted)):
        fuse_encoder_lora(autoencoder, encoder)
    at = (*config.condition, prompt.pooled_prompt_embeds.to(home)) if folded else None
    transformer = assemble(empty, folder, file, dtype, home, adapted if lora and fused else None, at, scheme)
    attend_in_products(transformer, device, dtype)
    if offload:
        # prefetching the next block needs a separate stream, which is used only on CUDA
        transformer.enable_group_offload(
            device, home, offload_type="block_level", num_blocks_per_group=1, use_stream=device.type == "cuda"
        )
    autoencoder = autoencoder.to(device, memory_format=image_layout(device)).eval()
    if compiled:
        compiling.compile_(None if offload else transformer, autoencoder)
    name = str(model) if adapter is None else f"{model} ({'no adapter' if adapter is False else adapter})"
    name += f" with autoencoder {vae}" if vae else ""
    given = model if adapter is None or isinstance(adapter, bool) else adapter
    sources = public_name(model), "none" if lora is None else public_name(given)
    return Backbone(transformer.eval(), autoencoder, prompt.to(device), config, name, sources)


def plan_for(
    model: str | Path,
    adapter: str | PathLike[str] | bool | None,
    device: torch.device,
    dtype: torch.dtype,
    memory: str,
    config_folder: str | Path | None = None,
    compiled: bool = False,
    vae: str | PathLike[str] | None = None,
) -> Plan:
    """Return a plan for loading a model on this machine (memory.py). Only its configurations are read.

    Args:
        memory: GPU memory budget, one of ``memory.MEMORIES``.
        model, adapter, device, dtype, config_folder, compiled, vae: see ``load``.

    Raises:
        ModelError: a configuration cannot be read.
        InputError: the memory budget is unknown or too small, or there is no GPU to compile for.
    """
    if compiled and device.type != "cuda":
        raise InputError(f"compile needs a CUDA GPU, but the device is '{device.type}'; leave it out")
    folder, file = source_of(model, config_folder)
    source, autoencoder = part_config(folder, "transformer"), empty_autoencoder(folder, vae)
    folded = skeleton(dict(source) | {"_class_name": family_of(source).folded.__name__})
    count = parameter_count(folded)
    method, stored = (source.get("quantization_config") or {}).get("quant_method"), None
    if method is not None:
        stored = int(count * BITS["nf4" if method == "bitsandbytes" else "int8"] / 8)
    if file and is_gguf(file):
        stored = file.stat().st_size * count // parameter_count(skeleton(source))
    tile_size = load_config(adapter_folder(folder, file, adapter)).tile_size
    decode = decoder_share(autoencoder) if vae else 1.0
    needs = Needs(count, parameter_count(autoencoder), tile_size, in_flight(folded), stored, decode)
    return plan(memory, free_bytes(device), needs, dtype, device.type, kinds_here(device), compiled)


def source_of(model: str | Path, config_folder: str | Path | None) -> tuple[Path | str, Path | None]:
    """Return the folder or Hub id of a model, and the file of its transformer if the model is a single file.

    Raises:
        InputError: a configuration folder is given without a file, or the package gguf is missing.
        ModelError: the file cannot be read, or its family is not that of the configuration.
    """
    file = single_file(model)
    if file is None and config_folder is not None:
        raise InputError(f"{model} is not a single file; leave --config (config_folder=) out")
    if file is None:
        return folder_of(model), None
    folder = folder_of(config_folder or flux_dev())
    check_family(file, family_of(part_config(folder, "transformer")))
    return folder, file


def adapter_folder(folder: Path | str, file: Path | None, adapter: str | PathLike[str] | bool | None) -> Path:
    """Return the folder with settings, prompt and LoRA: the adapter's, or the model's if there is no adapter."""
    if file and (adapter is None or isinstance(adapter, bool)):
        adapter = file.parent
    adapted = folder if adapter is None or isinstance(adapter, bool) else folder_of(adapter)
    return download(adapted, ADAPTER_FILES, "adapter") if isinstance(adapted, str) else adapted


def load_base(
    folder: str | Path, device: torch.device, dtype: torch.dtype, quantize: str = "none", prompt_folder: str | Path = ""
) -> Backbone:
    """Load the base of a training run: unfolded transformer, autoencoder and prompt, without an adapter.

    Args:
        folder: folder or Hub id of the base.
        device: device of transformer and autoencoder.
        dtype: number format.
        quantize: "nf4" quantizes the transformer to 4 bits.
        prompt_folder: folder of the prompt, if it is not in the folder of the base.
    """
    path = folder_of(folder)
    fixed = load_prompt(prompt_folder or path)
    scheme = nf4(device, dtype) if quantize == "nf4" else None
    transformer = _unfolded(load_part(path, "transformer", dtype, scheme), folder).to(device)
    vae = load_part(path, "vae", dtype).to(device, memory_format=image_layout(device))
    return Backbone(transformer, vae.requires_grad_(False), fixed, name=str(folder))


def load_transformer(model: str | Path, device: torch.device, dtype: torch.dtype) -> Any:
    """Load the transformer alone, frozen and unfolded, as a teacher."""
    transformer = _unfolded(load_part(folder_of(model), "transformer", dtype), model)
    transformer = transformer.to(device).eval().requires_grad_(False)
    attend_in_products(transformer, device, dtype)
    return transformer


def attend_in_products(transformer: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Use ``chunked_attention`` where it is faster, which is in bfloat16 on a CPU with units for it."""
    if device.type == "cpu" and dtype == torch.bfloat16 and has_bf16_units():
        attend_by_chunks(transformer)


def _unfolded(transformer: Any, model: str | Path) -> Any:
    """Return the transformer, or raise a ModelError if it is folded. Training and inversion need a time input."""
    if is_folded(transformer):
        raise ModelError(f"the transformer of {model} is folded, so its time is fixed; use the unfolded model")
    return transformer


def load_autoencoder(model: str | Path, device: torch.device) -> Any:
    """Load the autoencoder alone, frozen and in float32."""
    vae = load_part(folder_of(model), "vae", torch.float32).to(device, memory_format=image_layout(device))
    return vae.eval().requires_grad_(False)


def save_base(backbone: Backbone, folder: str | Path) -> None:
    """Write transformer, autoencoder, config and prompt in diffusers layout. An adapter may be saved there later."""
    backbone.transformer.save_pretrained(Path(folder, "transformer"))
    backbone.vae.save_pretrained(Path(folder, "vae"))
    save(backbone, folder)


def save(backbone: Backbone, folder: str | Path) -> None:
    """Write the config and the fixed prompt, which are not part of diffusers' layout."""
    backbone.config.save(folder)
    backbone.prompt.save(folder)
