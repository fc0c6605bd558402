"""Attach a LoRA to the transformer of a pipeline, like the pipelines of diffusers."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from fluxsr.backbones.adapter import AdapterConfig, load_config
from fluxsr.backbones.families import family_of, is_folded
from fluxsr.backbones.lora import check_installed, check_lora, for_transformer, lora_in, read_lora, refuse_dora
from fluxsr.backbones.places import CONFIG_FILE, ENCODER_FILE, PEFT_FILES, WEIGHTS_FILE, download_adapter, folder_of
from fluxsr.errors import ModelError

_HUB_OPTIONS = {"cache_dir", "force_download", "local_files_only", "token", "revision"}


def load_lora_weights(
    pipeline: Any,
    source: str | PathLike[str] | dict[str, Any],
    settings: AdapterConfig,
    adapter_name: str | None = None,
    **options: Any,
) -> None:
    """Attach a LoRA to the transformer of a pipeline; see ``FluxSRPipeline.load_lora_weights``."""
    check_installed()
    transformer, hotswap = pipeline.transformer, options.pop("hotswap", False)
    if is_folded(transformer):
        raise ModelError("the transformer is folded, so no LoRA can be attached; call fluxsr.load(model, adapter=...)")
    family, file = (
        family_of(transformer),
        None if isinstance(source, dict) else _checked_file(source, settings, options),
    )
    if file is None:
        refuse_dora(source, "given as tensors")  # type: ignore[arg-type]
        state, alphas, header = (for_transformer(entries) for entries in family.read_lora(source, **options))
    else:
        state, alphas, header = read_lora(file, family)
    check_lora(transformer, state, file or "given as tensors")
    transformer.load_lora_adapter(
        state,
        network_alphas=alphas or None,
        metadata=None if alphas else header or None,
        adapter_name=adapter_name,
        _pipeline=pipeline,
        hotswap=hotswap,
    )


def _checked_file(source: Any, settings: AdapterConfig, options: dict[str, Any]) -> Path:
    """Return the file of a LoRA, which may be on the Hub.

    Raises:
        ModelError: there is no LoRA, or its adapter has other settings or changes the autoencoder too.
    """
    name, below = options.get("weight_name"), Path(options.get("subfolder") or "")
    place = Path(source) if Path(source).is_file() else folder_of(source)
    if isinstance(place, str):
        files = [CONFIG_FILE, ENCODER_FILE, *([name] if name else [WEIGHTS_FILE, *PEFT_FILES])]
        hub = {key: options[key] for key in _HUB_OPTIONS & options.keys()}
        place = download_adapter(place, [(below / file).as_posix() for file in files], **hub)
    folder = place.parent if place.is_file() else place / below
    if (folder / CONFIG_FILE).is_file() and (own := load_config(folder).condition) != settings.condition:
        raise ModelError(
            f"adapter {source} was trained at t, guidance = {own}, but the pipeline uses {settings.condition}; "
            "call fluxsr.load(model, adapter=...)"
        )
    if (folder / ENCODER_FILE).is_file():
        raise ModelError(f"adapter {source} changes the autoencoder too; call fluxsr.load(model, adapter=...)")
    return place if place.is_file() else folder / name if name else lora_in(folder)
