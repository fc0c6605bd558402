"""Load a transformer from a single file: GGUF, or safetensors with BFL's or diffusers' names.

Such a file has only weights. The configuration and the autoencoder are read from a folder in diffusers layout. The
default is FLUX.1-dev's configuration, which is part of this package, and an autoencoder file beside the transformer's.
FLUX.2 always needs the folder. Its size is not visible in the names, and diffusers would assume [dev].
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from fluxsr.backbones.families import family_of_layers, known_class
from fluxsr.backbones.family import Family
from fluxsr.backbones.parts import check_complete, load_part, part_config
from fluxsr.backbones.places import AUTOENCODER, in_one_line
from fluxsr.backbones.streaming import Weights, has_safetensors
from fluxsr.errors import ModelError, needed

ENDINGS = (".gguf", ".safetensors")


def single_file(model: str | Path) -> Path | None:
    """Return the path if a model is a single file, and None for folders and Hub ids."""
    path = Path(model)
    return path if path.suffix.lower() in ENDINGS and path.is_file() else None


def is_gguf(file: Path) -> bool:
    """Return whether a file is in GGUF format, by its name."""
    return file.suffix.lower() == ".gguf"


def flux_dev() -> Path:
    """Return the folder with FLUX.1-dev's configurations, which has no weights."""
    return Path(str(resources.files("fluxsr") / "pretrained" / "flux_dev"))


def check_family(file: Path, family: Family) -> None:
    """Check that a file holds a transformer of the family of its configuration.

    Raises:
        InputError: the package gguf is not installed.
        ModelError: it holds another family, or cannot be read.
    """
    if is_gguf(file):
        needed(file.name, "gguf", "gguf")
    with in_one_line(file, "transformer"):
        own = family_of_layers({name: () for name in _names(file)})
    if own is not family:
        raise ModelError(
            f"{file} holds a {own.transformer.__name__}, but the configuration is of a {family.transformer.__name__}; "
            "set --config (config_folder=) to a folder of the file's model"
        )


def _names(file: Path) -> list[str]:
    """Return the names of a file's tensors, from its header."""
    if not is_gguf(file):
        return list(Weights([file]))
    from gguf import GGUFReader

    return [tensor.name for tensor in GGUFReader(file).tensors]


def read_weights(file: Path, family: Family) -> Mapping[str, Tensor]:
    """Return the tensors of a safetensors file under diffusers' names.

    Raises:
        ModelError: weights are missing, or scaled for 8-bit kernels, which is not supported.
    """
    weights = Weights([file])
    scaled = [name for name in weights if "scale_weight" in name or "scaled_fp8" in name or name.endswith("_scale")]
    if scaled:
        raise ModelError(f"{file} holds scaled 8-bit weights ('{scaled[0]}'), which cannot be read; use bf16 or GGUF")
    try:
        return family.convert(weights)
    except KeyError as error:
        raise ModelError(f"{file} lacks the weight {error}; download it again") from error


def load_gguf(file: Path, config: Path, dtype: torch.dtype) -> Any:
    """Load a transformer from a GGUF file. Its weights stay quantized, and products are computed in ``dtype``.

    Args:
        file: GGUF file.
        config: folder with ``transformer/config.json``. FLUX.1 can only be read at its original width.
        dtype: number format of the computation.

    Raises:
        ModelError: the file cannot be read or does not fit.
    """
    with in_one_line(file, "transformer"):
        kind = known_class("transformer", part_config(config, "transformer"))
        transformer = kind.from_single_file(
            str(file),
            config=str(config),
            subfolder="transformer",
            quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=dtype),
            torch_dtype=dtype,
            local_files_only=True,
        )
    check_complete(file, [name for name, x in transformer.state_dict().items() if x.is_meta])
    return transformer


def load_autoencoder_for(file: Path, config: Path, dtype: torch.dtype) -> Any:
    """Load the autoencoder of the configuration's folder, or ``ae.safetensors`` beside the transformer's file.

    Raises:
        ModelError: neither exists, or it cannot be read.
    """
    if has_safetensors(config / "vae") or list((config / "vae").glob("*.bin")):
        return load_part(config, "vae", dtype)
    kind = known_class("vae", part_config(config, "vae"))
    beside = file.with_name(AUTOENCODER)
    if not beside.is_file():
        raise ModelError(
            f"no autoencoder for {file.name}; put FLUX.1-dev's {AUTOENCODER} beside it, "
            "or set --config to a folder in diffusers layout with vae/"
        )
    with in_one_line(beside, "vae"):
        return kind.from_single_file(
            str(beside), config=str(config), subfolder="vae", torch_dtype=dtype, local_files_only=True
        )
