"""Load one component of a model in diffusers layout, and check that all of its weights are present.

Weights are read from safetensors, or from pickles with weights_only=True. No code from a model folder is run.
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
    """Load one component of a model in diffusers layout.

    Raises:
        ModelError: the class is unknown, or weights are missing, unreadable or of another shape.
    """
    with in_one_line(model, part):
        kind = known_class(part, part_config(model, part))
        scheme = {"quantization_config": quantization} if quantization else {}
        loaded, report = kind.from_pretrained(
            model, subfolder=part, torch_dtype=dtype, output_loading_info=True, **scheme
        )
    check_complete(f"{model}/{part}", report["missing_keys"])
    # diffusers trusts the index of a sharded model, so a weight that its shard lacks stays on the meta device
    check_complete(f"{model}/{part}", [name for name, tensor in loaded.state_dict().items() if tensor.is_meta])
    return loaded


def check_complete(path: Path | str, missing: Iterable[str]) -> None:
    """Raise a ModelError if weights are missing. It states their number and the first name."""
    if names := sorted(missing):
        raise ModelError(f"{path} lacks {len(names)} weights, the first is '{names[0]}'; download it again")


def part_config(model: str | Path, part: str) -> dict[str, Any]:
    """Return the configuration of a component, without loading its weights.

    Raises:
        ModelError: the configuration is missing or unreadable.
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
            raise ModelError(f"cannot load {part} of {folder}: {path.name} is a {type(config).__name__}, not a mapping")
        return config


def skeleton(config: Mapping[str, Any], part: str = "transformer") -> Any:
    """Return a component on the meta device (without memory), ignoring any quantization in its configuration.

    Raises:
        ModelError: the class is unknown.
    """
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    with torch.device("meta"):
        return known_class(part, config).from_config(plain)


def parameter_count(part: Any) -> int:
    """Return the number of parameters and constants of a ``skeleton``."""
    return sum(tensor.numel() for tensor in part.state_dict().values())


def in_flight(transformer: Any) -> int:
    """Return the number of parameters on the device at once with offload: two blocks and all other layers."""
    lists = [child for child in transformer.children() if isinstance(child, torch.nn.ModuleList)]
    blocks = [parameter_count(block) for child in lists for block in child]
    return parameter_count(transformer) - sum(blocks) + 2 * max(blocks)
