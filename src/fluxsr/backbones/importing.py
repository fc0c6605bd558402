"""Turn an adapter that others have published into ours: LoRA, settings, fixed prompt, licence and provenance.

The weights are copied as they are. Only names that diffusers does not read are changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fluxsr.backbones.adapter import AdapterConfig, invalid_setting, load_config
from fluxsr.backbones.device import best_device
from fluxsr.backbones.encoder_lora import check_encoder_lora, save_encoder_lora
from fluxsr.backbones.families import family_of
from fluxsr.backbones.folding import check_fit
from fluxsr.backbones.licence import (
    NOTICE_FILE,
    Licence,
    copy_licence,
    licence_of,
    pass_on,
    stated,
    write_notice,
)
from fluxsr.backbones.lora import check_lora, lora_file, read_lora
from fluxsr.backbones.parts import part_config, skeleton
from fluxsr.backbones.places import CONFIG_FILE, PEFT_FILES, WEIGHTS_FILE, download_adapter, folder_of, public_name
from fluxsr.backbones.prompts import FixedPrompt, load_prompt
from fluxsr.backbones.published import FILES, LAYOUTS, ImportOverrides, PublishedAdapter, layout_of
from fluxsr.backbones.text import encode_prompts
from fluxsr.errors import InputError, ModelError


def import_adapter(
    source: str | Path,
    base: str | Path,
    output: Path,
    given: ImportOverrides | None = None,
    prompt_folder: Path | None = None,
    device: str = "auto",
) -> tuple[str, AdapterConfig]:
    """Write our adapter from a published one.

    Args:
        source: folder or Hub id of the published adapter.
        base: folder or Hub id of the model that it adapts.
        output: folder that exists and is empty.
        prompt_folder: embeddings of the fixed prompt; without them, the base's text encoders encode its text.
        device: device of the text encoders.

    Returns:
        The name of its layout, and its settings.

    Raises:
        ModelError: the layout is unknown, a value is missing, or the adapter does not fit the base.
        InputError: a value that the layout does not have.
    """
    given, place = given or ImportOverrides(), folder_of(source)
    folder = download_adapter(place, FILES) if isinstance(place, str) else place
    name = layout_of(folder)
    if given.mid_timestep is not None and name != "omgsr":
        raise InputError(f"{source} is of the layout {name}, and only omgsr has a mid_timestep; give --t-l")
    found = LAYOUTS[name].read(folder, given)
    settings = {key: value for key, value in (found.settings | given.settings).items() if value is not None}
    settings.setdefault("source", public_name(source))
    config = part_config(base, "transformer")
    transformer = skeleton(config)
    if family_of(transformer).embeds_guidance(config) and settings.get("guidance") is None:
        raise ModelError(f"{source} names no guidance, and {base} needs one; give --guidance")
    prompt = _prompt(base, found, given, settings, prompt_folder, device)
    own = Licence(public_name(source), given.licence)  # left out where it is empty
    terms = stated(licence_of(base, config), found.licence, *_earlier(folder), own)
    settings |= {"base": public_name(base), "prompt": prompt.text, "licences": [one.as_dict() for one in terms]}
    imported = AdapterConfig(**settings)
    if fault := invalid_setting(imported):
        raise ModelError(f"{source}: {fault}")
    check_fit(transformer, prompt, imported, source)
    _write_lora(found.lora, output)
    imported = _with_rank(imported, transformer, output)
    if found.encoder:
        check_encoder_lora(skeleton(part_config(base, "vae"), "vae"), found.encoder, source)
        save_encoder_lora(found.encoder, output)
    imported.save(output)
    prompt.save(output)
    _write_terms(imported, output, folder, base)
    return name, imported


def _write_terms(imported: AdapterConfig, output: Path, folder: Path, base: str | Path) -> None:
    """Write the notice, and copy the licences of the adapter and of its base."""
    if not ((folder / CONFIG_FILE).is_file() and (folder / NOTICE_FILE).is_file()):  # ours is passed on as it is
        write_notice(output, *imported.licences)
    pass_on(output, folder, base)
    for text in filter(Path.is_file, folder.glob("*-LICENSE*")):  # such as FLUX.1-dev-LICENSE.md
        copy_licence(text, output, text.name.partition("-LICENSE")[0], f"LICENSE{text.suffix}")


def _earlier(folder: Path) -> list[Mapping[str, str]]:
    """Return the licences that an adapter of ours has recorded."""
    return list(load_config(folder).licences) if (folder / CONFIG_FILE).is_file() else []


def _prompt(
    base: str | Path,
    found: PublishedAdapter,
    given: ImportOverrides,
    settings: Mapping[str, Any],
    folder: Path | None,
    device: str,
) -> FixedPrompt:
    """Return the fixed prompt: the user's embeddings or text, then the adapter's embeddings, then its text."""
    if folder := folder or (found.prompt if given.prompt is None else None):
        prompt = load_prompt(folder)
        return replace(prompt, text=prompt.text or settings.get("prompt", ""))
    if "prompt" not in settings:
        raise ModelError("the fixed prompt is not known; give --prompt TEXT, or --prompt-folder with its embeddings")
    text = settings["prompt"]
    return replace(encode_prompts(base, [text], best_device(device), torch.bfloat16)([text]), text=text)


def _write_lora(lora: Path | dict[str, Tensor], output: Path) -> None:
    if isinstance(lora, dict):
        save_file(lora, output / WEIGHTS_FILE)
        return
    peft = lora.name == PEFT_FILES[0]
    shutil.copyfile(lora, output / (lora.name if peft else WEIGHTS_FILE))
    if peft and (config := lora.with_name(PEFT_FILES[1])).is_file():
        shutil.copyfile(config, output / config.name)


def _with_rank(config: AdapterConfig, transformer: Any, output: Path) -> AdapterConfig:
    """Check that the LoRA that was written fits, and return the settings with its rank and alpha."""
    path = lora_file(output) or output
    state, alphas, header = read_lora(path, family_of(transformer))
    check_lora(transformer, state, path)
    rank = max(len(value) for key, value in state.items() if ".lora_A" in key)
    alpha = header.get("transformer.lora_alpha") or next(iter((alphas or {}).values()), rank)
    return replace(config, rank=rank, alpha=float(alpha))
