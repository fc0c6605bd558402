"""Replace a model's autoencoder by a faster one, such as TAEF1, TAEF2 or FLUX.2's small decoder.

A replacement is a folder or a repository on the Hub with ``config.json`` and weights. TAEF2's has only weights.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from fluxsr.backbones.families import family_of
from fluxsr.backbones.parts import check_complete, part_config, skeleton
from fluxsr.backbones.places import TAEF2, autoencoder_folder, in_one_line
from fluxsr.backbones.taef2 import AutoencoderTinyFlux2
from fluxsr.errors import ModelError

FULL_WIDTH = 128  # channels of the last layers of FLUX's own decoders, which need the most memory


def empty_autoencoder(model: Path | str, vae: str | PathLike[str] | None = None) -> Any:
    """Return a model's autoencoder, or its replacement, on the meta device.

    Raises:
        ModelError: a configuration cannot be read, or the replacement has other latents than the model's autoencoder.
    """
    own = skeleton(part_config(model, "vae"), "vae")
    if not vae:
        return own
    folder = autoencoder_folder(vae)
    with in_one_line(str(vae), "vae"):
        new = skeleton(_config(folder), "vae")
    if _latents(new) != _latents(own):
        raise ModelError(
            f"{vae} is a {type(new).__name__} with {new.config.latent_channels} latent channels, which does not fit "
            f"the {type(own).__name__} with {own.config.latent_channels} of {model}; choose one made for this model"
        )
    return new


def load_replacement(model: Path | str, vae: str | PathLike[str], dtype: torch.dtype) -> Any:
    """Load an autoencoder that replaces a model's.

    Raises:
        ModelError: it does not fit, or weights are missing or unreadable.
    """
    empty, folder = empty_autoencoder(model, vae), autoencoder_folder(vae)
    with in_one_line(str(vae), "vae"):
        if (folder / "config.json").is_file():
            loaded, report = type(empty).from_pretrained(folder, torch_dtype=dtype, output_loading_info=True)
            missing = report["missing_keys"]
        else:
            loaded, weights = empty, {name: weight.to(dtype) for name, weight in load_file(folder / TAEF2).items()}
            missing = loaded.load_state_dict(weights, strict=False, assign=True).missing_keys
    check_complete(folder, missing)
    return loaded


def decoder_share(vae: Any) -> float:
    """Return the memory of a decoder's activations relative to that of FLUX's own decoders, by its width."""
    config = vae.config
    return (config.get("decoder_block_out_channels") or config.block_out_channels)[0] / FULL_WIDTH


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file() and (folder / TAEF2).is_file():
        return {"_class_name": AutoencoderTinyFlux2.__name__}
    if not file.is_file():
        raise ModelError(f"no config.json in {folder}; expected the folder of an autoencoder, such as MODEL/vae")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _latents(vae: Any) -> tuple[Any, ...]:
    """Return what the latents of two autoencoders must have in common."""
    family = family_of(vae)
    return family, vae.config.latent_channels, family.latent_pixels(vae)
