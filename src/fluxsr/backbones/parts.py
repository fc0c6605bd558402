"""One component of a model in diffusers layout: its configuration, and all of its weights or a clear error.

Weights are read from safetensors, or from pickles with weights_only=True; no code of a model folder runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from fluxsr.backbones.families import CLASSES, known_class
from fluxsr.backbones.places import folder_of, in_one_line
from fluxsr.errors import ModelError


def load_part(model: Path | str, part: str, dtype: torch.dtype, quantization: Any = None) -> Any:
    """One component of a model in diffusers layout, of a class we know, with every weight in place.

    Raises:
        ModelError: unknown class, or weights that are missing, mis-shaped or unreadable.
    """
    with in_one_line(model, part):
        kind = known_class(part, part_config(model, part))
        scheme = {"quantization_config": quantization} if quantization else {}
        loaded, report = kind.from_pretrained(
            model, subfolder=part, torch_dtype=dtype, output_loading_info=True, **scheme
        )
    check_whole(f"{model}/{part}", report["missing_keys"])
    # diffusers believes the index of a sharded model; a weight that its shard lacks stays without memory
    check_whole(f"{model}/{part}", [name for name, tensor in loaded.state_dict().items() if tensor.is_meta])
    return loaded


def check_whole(place: Path | str, missing: Iterable[str]) -> None:
    """Raise a ModelError that counts a place's missing weights and names the first, where there are any."""
    if names := sorted(missing):
        raise ModelError(f"{place} lacks {len(names)} weights, the first is '{names[0]}'; download it again")


def part_config(model: str | Path, part: str) -> dict[str, Any]:
    """The configuration of a part, without its weights.

    Raises:
        ModelError: missing or unreadable.
    """
    folder = folder_of(model)
    with in_one_line(folder, part):
        if isinstance(folder, str):
            return next(iter(CLASSES[part].values())).load_config(folder, subfolder=part)
        path = folder / part / "config.json"
        if not path.is_file():
            raise ModelError(f"no {part}/config.json in {folder}; expected a model folder in diffusers layout")
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ModelError(f"cannot load {part} of {folder}: {path.name} holds a {type(config).__name__}, no mapping")
        return config


def skeleton(config: Mapping[str, Any], part: str = "transformer") -> Any:
    """A part of this configuration without memory (on the meta device), whatever its weights are kept in.

    Raises:
        ModelError: unknown class.
    """
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    with torch.device("meta"):
        return known_class(part, config).from_config(plain)


def parameter_count(part: Any) -> int:
    """Parameters and constants of a ``skeleton``."""
    return sum(tensor.numel() for tensor in part.state_dict().values())


def in_flight(transformer: Any) -> int:
    """Parameters of a ``skeleton`` that are on the device at once if it is offloaded: two blocks, and the rest."""
    lists = [child for child in transformer.children() if isinstance(child, torch.nn.ModuleList)]
    blocks = [parameter_count(block) for child in lists for block in child]
    return parameter_count(transformer) - sum(blocks) + 2 * max(blocks)
