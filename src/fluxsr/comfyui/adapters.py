"""Adapter folders in ComfyUI's ``models/loras``.

ComfyUI's own loader reads the LoRA. This module reads the rest: the fixed prompt and ``fluxsr_config.json``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from fluxsr.backbones import prompts
from fluxsr.backbones.adapter import AdapterConfig, load_config
from fluxsr.backbones.encoder_lora import encoder_file
from fluxsr.backbones.lora import check_lora_alone, lora_file, read_lora
from fluxsr.errors import InputError, ModelError

KEY = "fluxsr"  # entry of a conditioning that holds the adapter's config
PROMPT_FILES = (prompts.FILE, "t5_embedding.pth")


def adapter_names(files: Iterable[str]) -> list[str]:
    """Return the folders that hold a fixed prompt, from the names of the files in ``models/loras``."""
    paths = (PurePath(file) for file in files)
    return sorted({str(path.parent) for path in paths if path.name in PROMPT_FILES and path.parent.name})


def folder_of(name: str, roots: Iterable[str]) -> Path:
    """Return the adapter folder of this name in one of ComfyUI's LoRA folders.

    Raises:
        InputError: no folder has it.
    """
    folders = [Path(root, name) for root in roots]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise InputError(f"no adapter folder '{name}'; put it into {' or '.join(str(f.parent) for f in folders)}")


def conditioning(folder: Path) -> list[list[Any]]:
    """Return the fixed prompt as ComfyUI's conditioning: [[states (1,L,D), {"pooled_output": (1,P), ...}]].

    It also holds the adapter's config, and its guidance as training saw it, if any.

    Raises:
        ModelError: the prompt or the config is missing or cannot be used.
    """
    if encoder := encoder_file(folder):
        raise ModelError(f"{encoder} adapts the autoencoder, which ComfyUI's LoRA loader does not; use fluxsr upscale")
    config, prompt = load_config(folder), prompts.load_prompt(folder)
    extras: dict[str, Any] = {"pooled_output": prompt.pooled_prompt_embeds.float(), KEY: config}
    _, guidance = config.condition
    if guidance is not None:
        extras["guidance"] = guidance
    return [[prompt.prompt_embeds.float(), extras]]


def config_in(conditions: Any) -> AdapterConfig:
    """Return the adapter's config from a conditioning.

    Raises:
        InputError: the conditioning is from another node, or combines several.
    """
    configs = [extras.get(KEY) for _, extras in conditions]
    if len(configs) != 1 or not isinstance(configs[0], AdapterConfig):
        raise InputError(
            f"conditioning has {len(configs)} entries, {sum(c is not None for c in configs)} of a FluxSR adapter; "
            "connect FluxSR Conditioning"
        )
    return configs[0]


def lora_strength(folder: Path) -> float:
    """Return the strength with which ComfyUI's LoRA loader gives the scale alpha / rank of the training.

    ComfyUI reads alpha from a tensor beside the matrices. diffusers and PEFT write it into a header, which ComfyUI
    ignores. The strength is 1 if there is no LoRA.

    Raises:
        ModelError: the LoRA cannot be read, holds more than its matrices, or scales its layers differently.
    """
    path = lora_file(folder)
    if path is None:
        return 1.0
    state, alphas, header = read_lora(path)
    check_lora_alone(state, path)
    options = {key.removeprefix("transformer."): value for key, value in header.items()}
    if alphas or not options.get("r") or options.get("lora_alpha") is None:
        return 1.0
    if options.get("rank_pattern") or options.get("alpha_pattern"):
        raise ModelError(f"{path} scales layer by layer in its header, which ComfyUI ignores; use fluxsr upscale")
    return float(options["lora_alpha"]) / float(options["r"]) ** (0.5 if options.get("use_rslora") else 1.0)
