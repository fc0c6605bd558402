"""One component of a model in diffusers layout: its configuration, and all of its weights or a clear error.

Weights are read from safetensors, or from pickles with weights_only=True; no code of a model folder runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch

from fluxsr.backbone.fold import FoldedFluxTransformer2DModel
from fluxsr.backbone.places import explain, folder_of
from fluxsr.errors import ModelError

CLASSES = {
    "transformer": {
        "FluxTransformer2DModel": diffusers.FluxTransformer2DModel,
        "FoldedFluxTransformer2DModel": FoldedFluxTransformer2DModel,
    },
    "vae": {"AutoencoderKL": diffusers.AutoencoderKL, "AutoencoderDC": diffusers.AutoencoderDC},
}


def load_part(model: Path | str, part: str, dtype: torch.dtype, quantization: Any = None) -> Any:
    """One component of a model in diffusers layout, of a class we know, with every weight in place.

    Raises:
        ModelError: unknown class, or weights that are missing, mis-shaped or unreadable.
    """
    try:
        config = _read_config(model, part)
        name = config.get("_class_name", "none")
        if name not in CLASSES[part]:
            raise ModelError(f"{model}/{part} is of class {name}; known are {', '.join(CLASSES[part])}")
        scheme = {"quantization_config": quantization} if quantization else {}
        loaded, report = CLASSES[part][name].from_pretrained(
            model, subfolder=part, torch_dtype=dtype, output_loading_info=True, **scheme
        )
    except ModelError:
        raise
    except Exception as error:  # diffusers, hub and safetensors raise many kinds; all end in one line
        raise ModelError(explain(model, part, error)) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(f"{model}/{part} lacks {len(missing)} weights, the first is '{missing[0]}'; download it again")
    # diffusers believes the index of a sharded model; a weight that its shard lacks stays without memory
    empty = [name for name, tensor in loaded.state_dict().items() if tensor.is_meta]
    if empty:
        raise ModelError(f"{model}/{part} lacks {len(empty)} weights, the first is '{empty[0]}'; download it again")
    return loaded


def part_config(model: str | Path, part: str) -> dict[str, Any]:
    """The configuration of a part, without its weights.

    Raises:
        ModelError: missing or unreadable.
    """
    folder = folder_of(model)
    try:
        return _read_config(folder, part)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(explain(folder, part, error)) from error


def parameter_count(config: Mapping[str, Any]) -> int:
    """Parameters and constants of a transformer of this configuration, whatever its weights are kept in."""
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    with torch.device("meta"):
        transformer = CLASSES["transformer"][config["_class_name"]].from_config(plain)
    return sum(tensor.numel() for tensor in transformer.state_dict().values())


def _read_config(model: Path | str, part: str) -> dict[str, Any]:
    if isinstance(model, Path):
        path = model / part / "config.json"
        if not path.is_file():
            raise ModelError(f"no {part}/config.json in {model}; expected a model folder in diffusers layout")
        return json.loads(path.read_text(encoding="utf-8"))
    return CLASSES[part][next(iter(CLASSES[part]))].load_config(model, subfolder=part)
