"""Adapter folders among ComfyUI's LoRAs: which there are, and what they become in ComfyUI.

An adapter folder is put into ``models/loras`` as it is. ComfyUI's own loader reads its LoRA; what that does not know,
the fixed prompt and ``fluxsr_config.json``, is read here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from fluxsr.backbones import prompts
from fluxsr.backbones.adapter import AdapterConfig, load_config
from fluxsr.backbones.lora import check_lora_alone, lora_file, read_lora
from fluxsr.errors import InputError, ModelError

KEY = "fluxsr"  # under which the adapter's config travels in a conditioning
PROMPT_FILES = (prompts.FILE, "t5_embedding.pth")


def adapter_names(files: Iterable[str]) -> list[str]:
    """The folders among the files of ``models/loras`` that hold a fixed prompt, by their names there."""
    paths = (PurePath(file) for file in files)
    return sorted({str(path.parent) for path in paths if path.name in PROMPT_FILES and path.parent.name})


def folder_of(name: str, roots: Iterable[str]) -> Path:
    """The adapter folder of this name under ComfyUI's LoRA folders.

    Raises:
        InputError: none of them has it.
    """
    folders = [Path(root, name) for root in roots]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise InputError(f"no adapter folder '{name}'; put it into {' or '.join(str(f.parent) for f in folders)}")


def conditioning(folder: Path) -> list[list[Any]]:
    """The adapter's fixed prompt as ComfyUI's conditioning: [[states (1,L,D), {"pooled_output": (1,P), ...}]].

    Guidance is in it, as training saw it, where the adapter names one; its config is under "fluxsr".

    Raises:
        ModelError: a prompt or config that is missing or cannot be used.
    """
    config, prompt = load_config(folder), prompts.load_prompt(folder)
    extras: dict[str, Any] = {"pooled_output": prompt.pooled_prompt_embeds.float(), KEY: config}
    _, guidance = config.condition
    if guidance is not None:
        extras["guidance"] = guidance
    return [[prompt.prompt_embeds.float(), extras]]


def config_in(conditions: Any) -> AdapterConfig:
    """The adapter's config that ``conditioning`` put into a conditioning.

    Raises:
        InputError: a conditioning from elsewhere, or a combination of several.
    """
    configs = [extras.get(KEY) for _, extras in conditions]
    if len(configs) != 1 or not isinstance(configs[0], AdapterConfig):
        raise InputError(
            f"conditioning has {len(configs)} entries, {sum(c is not None for c in configs)} of a FluxSR adapter; "
            "connect FluxSR Conditioning"
        )
    return configs[0]


def lora_strength(folder: Path) -> float:
    """What ComfyUI's LoRA loader must be told for the scale alpha / rank that the adapter was trained with.

    ComfyUI knows alpha as a tensor beside the matrices; diffusers and PEFT write it into a header, which ComfyUI
    does not read, so that any other scale than 1 has to come as the loader's strength. 1 where there is no LoRA.

    Raises:
        ModelError: a LoRA that cannot be read, that is more than its matrices, or whose layers scale differently.
    """
    path = lora_file(folder)
    if path is None:
        return 1.0
    state, alphas, header = read_lora(path)
    check_lora_alone(state, path)
    told = {key.removeprefix("transformer."): value for key, value in header.items()}
    if alphas or not told.get("r") or told.get("lora_alpha") is None:
        return 1.0
    if told.get("rank_pattern") or told.get("alpha_pattern"):
        raise ModelError(f"{path} scales layer by layer in its header, which ComfyUI ignores; use fluxsr upscale")
    return float(told["lora_alpha"]) / float(told["r"]) ** (0.5 if told.get("use_rslora") else 1.0)
