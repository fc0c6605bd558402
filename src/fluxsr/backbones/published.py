"""The layouts in which others publish adapters for one-step super-resolution, and what is read from each.

A layout is one entry of `LAYOUTS`. ``importing.py`` turns what it reads into an adapter of ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from fluxsr.backbones.adapter import load_config
from fluxsr.backbones.encoder_lora import Pairs, encoder_file, read_encoder_lora
from fluxsr.backbones.licence import NOTHING_GRANTED, Licence
from fluxsr.backbones.loading import ADAPTER_FILES
from fluxsr.backbones.lora import lora_in
from fluxsr.backbones.places import CONFIG_FILE, PEFT_FILES, PROMPT_FILE, PROMPT_PICKLES, WEIGHTS_FILE
from fluxsr.errors import InputError, ModelError, first_line

OMGSR_STEPS, OMGSR_TOKENS = 999, 4096  # steps and image tokens of the schedule in which OMGSR counts its time
TRAINING_CONFIG = "training_config.json"
STATE = "state_dict.pth"
_FLUX, _ENCODER = "flux_adapter", "vae_encoder_adapter"
FILES = [*ADAPTER_FILES, TRAINING_CONFIG, STATE, "FLUX.1-dev-LICENSE.md"]  # to fetch from the Hub
FILES += [f"{folder}/{file}" for folder in (_FLUX, _ENCODER) for file in PEFT_FILES]


@dataclass(frozen=True)
class ImportOverrides:
    """Values that the user gives; None takes those of the layout."""

    t_l: float | None = None
    mid_timestep: int | None = None
    guidance: float | None = None
    prompt: str | None = None
    tile_size: int | None = None
    licence: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """The values that are fields of `AdapterConfig`."""
        values = {name: getattr(self, name) for name in ("t_l", "guidance", "prompt", "tile_size")}
        return {name: value for name, value in values.items() if value is not None}


@dataclass
class PublishedAdapter:
    """What a published adapter holds.

    Attributes:
        lora: the file of the transformer's LoRA, or its tensors under diffusers' names.
        settings: fields of `AdapterConfig`; those that are None are unknown.
        encoder: LoRA of the autoencoder's encoder.
        prompt: folder with the embeddings of the fixed prompt.
        licence: of the adapter, apart from that of its base.
    """

    lora: Path | dict[str, Tensor]
    settings: dict[str, Any]
    encoder: Pairs = field(default_factory=dict)
    prompt: Path | None = None
    licence: Licence | None = None


def omgsr_time(mid_timestep: int) -> float:
    """Return the time of a step of OMGSR's schedule: FLUX.1's shift for 4096 tokens, applied to step / 999."""
    mu = 0.5 + (1.15 - 0.5) * (OMGSR_TOKENS - 256) / (4096 - 256)
    return math.exp(mu) / (math.exp(mu) + OMGSR_STEPS / mid_timestep - 1)


def _omgsr(folder: Path, given: ImportOverrides) -> PublishedAdapter:
    step = 244 if given.mid_timestep is None else given.mid_timestep
    if not 0 < step < OMGSR_STEPS:
        raise InputError(f"mid_timestep is {step}; it must lie between 0 and {OMGSR_STEPS} (published: 244, older 295)")
    settings = {"t_l": omgsr_time(step), "guidance": 1.0, "prompt": "", "tile_size": 1024}
    counted = f", mid_timestep {step}" if given.t_l is None else ""  # a time that the user gives is no step of theirs
    settings["source"] = f"OMGSR-F (github.com/wuer5/OMGSR){counted}"
    licence = Licence("wuer5/OMGSR", NOTHING_GRANTED, "https://github.com/wuer5/OMGSR")
    encoder = read_encoder_lora(folder / _ENCODER / PEFT_FILES[0])
    return PublishedAdapter(folder / _FLUX / PEFT_FILES[0], settings, encoder, licence=licence)


_SPELLINGS = {
    "t_l": ("t_l", "tl", "t_lr", "t_lq"),
    "guidance": ("guidance", "guidance_scale", "student_guidance", "inference_guidance", "inference_guidance_scale"),
    "tile_size": ("tile_size", "tile"),
}


def _community(folder: Path, given: ImportOverrides) -> PublishedAdapter:
    path = folder / TRAINING_CONFIG
    try:
        entries = _flat(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    settings = {name: _entry(path, entries, name, getattr(given, name)) for name in _SPELLINGS}
    if settings["t_l"] is None:
        raise ModelError(f"{path} names no {_SPELLINGS['t_l'][0]} (it has {', '.join(entries)}); give --t-l")
    settings["source"] = "FluxSR by the community (huggingface.co/mon3tr/FluxSR-private)"
    return PublishedAdapter(folder / WEIGHTS_FILE, settings, prompt=folder)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return the entries of nested mappings by their dotted, lower-case keys."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}.{key}".strip(".").lower().replace("-", "_"))
    return found


def _entry(path: Path, entries: Mapping[str, Any], name: str, given: Any) -> Any:
    """Return the number that a training's settings give for a name; those of inference come first."""
    hits = {
        key: value
        for key, value in entries.items()
        if key.split(".")[-1] in _SPELLINGS[name] and isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    hits = {key: value for key, value in hits.items() if "infer" in key} or hits
    if len(set(hits.values())) > 1 and given is None:
        said = ", ".join(f"{key} = {value}" for key, value in hits.items())
        raise ModelError(f"{path} gives {name} more than once ({said}); give --{name.replace('_', '-')}")
    return next(iter(hits.values()), None)


def _strsr(folder: Path, given: ImportOverrides) -> PublishedAdapter:
    if not given.prompt:
        raise ModelError(
            f"{folder} is StrSR's, of which only the mode with a text runs here, not the one with image features; "
            "give its text with --prompt"
        )
    settings = {"t_l": 0.8, "tile_size": 1024, "source": "StrSR (github.com/jkwang28/StrSR), mode txt"}
    licence = Licence("jkwang28/StrSR", "non-commercial terms of its authors", "https://github.com/jkwang28/StrSR")
    return PublishedAdapter(_named_as_diffusers(folder / STATE), settings, licence=licence)


def _named_as_diffusers(path: Path) -> dict[str, Tensor]:
    """Read a state dict of a model that PEFT has wrapped, whose names contain that of the adapter."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {
            "transformer." + key.removeprefix("base_model.model.").replace(".default.", "."): value.contiguous()
            for key, value in state.items()
        }
    except (OSError, RuntimeError, UnpicklingError, EOFError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error


def _ours(folder: Path, given: ImportOverrides) -> PublishedAdapter:
    config = load_config(folder)
    settings = {key: value for key, value in vars(config).items() if key not in ("base", "licences")}
    encoder = encoder_file(folder)
    pairs = read_encoder_lora(encoder) if encoder else {}
    return PublishedAdapter(lora_in(folder), settings, pairs, folder)


def _plain(folder: Path, given: ImportOverrides) -> PublishedAdapter:
    if given.t_l is None:
        raise ModelError(f"{folder} holds a LoRA without settings; give --t-l, the time at which it was trained")
    names = (PROMPT_FILE, PROMPT_PICKLES[0])
    prompt = folder if given.prompt is None and any((folder / name).is_file() for name in names) else None
    return PublishedAdapter(lora_in(folder), {}, prompt=prompt)


@dataclass(frozen=True)
class Layout:
    """A way in which adapters are published.

    Attributes:
        files: files that tell it; one of each group has to be there.
        read: returns what a folder of this layout holds.
    """

    files: tuple[str, ...]
    read: Callable[[Path, ImportOverrides], PublishedAdapter]


LAYOUTS: Mapping[str, Layout] = {  # the first that fits
    "fluxsr": Layout((CONFIG_FILE,), _ours),
    "omgsr": Layout((f"{_FLUX}/{PEFT_FILES[0]}", f"{_ENCODER}/{PEFT_FILES[0]}"), _omgsr),
    "community": Layout((TRAINING_CONFIG, WEIGHTS_FILE), _community),
    "strsr": Layout((STATE,), _strsr),
    "lora": Layout(("*.safetensors",), _plain),
}


def layout_of(folder: Path) -> str:
    """Return the name of the layout of a folder.

    Raises:
        ModelError: no layout fits.
    """
    for name, layout in LAYOUTS.items():
        if all(any(folder.glob(file)) for file in layout.files):
            return name
    found = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
    known = "; ".join(f"{name} ({', '.join(layout.files)})" for name, layout in LAYOUTS.items())
    raise ModelError(f"{folder} holds {found}, which is no known adapter; known are {known}")
