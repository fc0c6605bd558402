"""Scores of a short run: what its model makes of the middles of validation photographs, spoilt alike for all runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from torch import Tensor

from fluxsr import FluxSRPipeline
from fluxsr.degradation import degrade, load_settings
from fluxsr.errors import InputError
from fluxsr.imaging.photographs import DataConfig
from fluxsr.keyed import keyed_generator
from fluxsr.training.validation import spectral_scores, validation_photographs

CAMERA = Path(__file__).parents[1] / "recipes" / "tiny" / "camera.yaml"
PRESETS = {"": "mild", "camera_": str(CAMERA)}  # by prefix of the column
MIDDLE = slice(128, 384)  # of a validation crop of 512 pixels: more photographs for the same time
Upscale = Callable[[Tensor], Tensor]  # (1,3,h,w) to (1,3,4h,4w)


def middles(data: DataConfig) -> list[Tensor]:
    photos = [photo[None, :, MIDDLE, MIDDLE] / 255 for photo in validation_photographs(data)]
    if not photos:
        raise InputError("data.validation is empty, but the tables are what it measures")
    return photos


def upscaled(upscale: Upscale, photos: list[Tensor], columns: Collection[str]) -> dict[str, float]:
    """Scores on the presets that columns name."""
    found: dict[str, float] = {}
    for prefix in (prefix for prefix in PRESETS if f"{prefix}psnr" in columns):
        found |= scores(map(upscale, spoilt(photos, PRESETS[prefix])), photos, prefix)
    return found


def model(name: str | Path, **settings: float) -> Upscale:
    """A model of the pipeline, in bfloat16 and without colour fix, which would hide what it does to colours."""
    pipe = FluxSRPipeline.from_pretrained(name, device="cpu", dtype="bf16")
    return lambda lr: pipe(lr, color_fix="none", output_type="pt", **settings).images


def spoilt(photos: list[Tensor], preset: str) -> list[Tensor]:
    settings = load_settings(preset)
    return [degrade(photo, settings, keyed_generator(0, 5, index)) for index, photo in enumerate(photos)]


def scores(made: Iterable[Tensor], photos: list[Tensor], prefix: str) -> dict[str, float]:
    found = spectral_scores([image.clamp(0, 1) for image in made], photos)
    return {key.replace("val/", prefix): value for key, value in found.items()}
