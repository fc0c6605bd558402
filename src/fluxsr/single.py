"""``fluxsr.upscale``: one image by the bundled model, for those who want nothing but that."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from fluxsr.errors import InputError
from fluxsr.imaging import inputs, io
from fluxsr.options import UpscaleOptions
from fluxsr.pipeline import FluxSRPipeline

_DEFAULT = UpscaleOptions()


def upscale(image: Any, scale: float = _DEFAULT.scale, **options: Any) -> Image.Image:
    """Enlarge one image with the bundled model, which is loaded once.

    Args:
        image: a path, or one image as ``FluxSRPipeline`` takes it; a file's colour profile and EXIF
            orientation are applied, a PIL image is taken as it is.
        scale, options: those of ``FluxSRPipeline.__call__``, but for ``output_type`` and ``return_dict``.

    Raises:
        InputError: an image or an argument that cannot be used, or several images.
        ModelError: the bundled model is missing, or gives values that are not finite.
    """
    for name in ("output_type", "return_dict"):
        if name in options:
            raise InputError(f"upscale gives one PIL image and takes no {name}; use FluxSRPipeline")
    if isinstance(image, (str, Path)):
        image = io.read(image).image
    images = inputs.tensors(image)
    if isinstance(image, (list, tuple)) or len(images) != 1:
        raise InputError(f"image is a {type(image).__name__} of {len(images)}; upscale takes one, FluxSRPipeline more")
    return _bundled()(images[0], scale, **options).images[0]


@lru_cache(maxsize=1)
def _bundled() -> FluxSRPipeline:
    return FluxSRPipeline.from_pretrained("bundled")
