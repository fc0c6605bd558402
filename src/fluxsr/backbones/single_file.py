"""A transformer in a file of its own, as it is passed around: GGUF, or safetensors in BFL's or diffusers' names.

Such a file holds weights alone. Its configuration and the autoencoder come from a folder in diffusers layout; without
one they are FLUX.1-dev's, whose sizes are in this package, and the autoencoder's file is looked for beside. FLUX.2
always needs the folder: its sizes cannot be told from the names, and diffusers takes every file for [dev].
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
from fluxsr.backbones.parts import check_whole, load_part, part_config
from fluxsr.backbones.places import AUTOENCODER, in_one_line
from fluxsr.backbones.streaming import Weights, has_safetensors
from fluxsr.errors import ModelError, needed

ENDINGS = (".gguf", ".safetensors")


def single_file(model: str | Path) -> Path | None:
    """The file, where a model is one; None for folders and Hub ids."""
    path = Path(model)
    return path if path.suffix.lower() in ENDINGS and path.is_file() else None


def is_gguf(file: Path) -> bool:
    return file.suffix.lower() == ".gguf"


def flux_dev() -> Path:
    """The folder of FLUX.1-dev's configurations, without weights."""
    return Path(str(resources.files("fluxsr") / "pretrained" / "flux_dev"))


def check_family(file: Path, family: Family) -> None:
    """Check that a file holds a transformer of the family of its configuration.

    Raises:
        InputError: the package gguf is not installed.
        ModelError: it holds another one, or cannot be read.
    """
    if is_gguf(file):
        needed(file.name, "gguf", "gguf")
    with in_one_line(file, "transformer"):
        own = family_of_layers({name: () for name in _names(file)})
    if own is not family:
        raise ModelError(
            f"{file} holds a {own.transformer.__name__}, and the configuration is a {family.transformer.__name__}'s; "
            "give --config (config_folder=) a folder of the file's model"
        )


def _names(file: Path) -> list[str]:
    """Return the names of a file's tensors, from its header."""
    if not is_gguf(file):
        return list(Weights([file]))
    from gguf import GGUFReader

    return [tensor.name for tensor in GGUFReader(file).tensors]


def read_weights(file: Path, family: Family) -> Mapping[str, Tensor]:
    """The tensors of a safetensors file under diffusers' names.

    Raises:
        ModelError: weights that are missing, or scaled for 8-bit kernels, which numbers do not tell.
    """
    weights = Weights([file])
    scaled = [name for name in weights if "scale_weight" in name or "scaled_fp8" in name or name.endswith("_scale")]
    if scaled:
        raise ModelError(f"{file} holds scaled 8-bit weights ('{scaled[0]}'), which are not read; take bf16 or GGUF")
    try:
        return family.convert(weights)
    except KeyError as error:
        raise ModelError(f"{file} lacks the weight {error}; download it again") from error


def load_gguf(file: Path, config: Path, dtype: torch.dtype) -> Any:
    """Load a transformer whose weights stay quantized as in its GGUF file and compute in ``dtype``.

    Args:
        config: folder with its ``transformer/config.json``; of FLUX.1, only the true width can be read.

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
    check_whole(file, [name for name, x in transformer.state_dict().items() if x.is_meta])
    return transformer


def load_autoencoder_for(file: Path, config: Path, dtype: torch.dtype) -> Any:
    """The autoencoder of the configuration's folder, or of ``ae.safetensors`` beside the transformer's file.

    Raises:
        ModelError: neither is there, or it cannot be read.
    """
    if has_safetensors(config / "vae") or list((config / "vae").glob("*.bin")):
        return load_part(config, "vae", dtype)
    kind = known_class("vae", part_config(config, "vae"))
    beside = file.with_name(AUTOENCODER)
    if not beside.is_file():
        raise ModelError(
            f"no autoencoder for {file.name}: put FLUX.1-dev's {AUTOENCODER} beside it, "
            "or give --config a folder in diffusers layout with vae/"
        )
    with in_one_line(beside, "vae"):
        return kind.from_single_file(
            str(beside), config=str(config), subfolder="vae", torch_dtype=dtype, local_files_only=True
        )
