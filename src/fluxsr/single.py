"""``fluxsr.load`` and ``fluxsr.upscale``: a model ready to run, and one image by the bundled model."""

from __future__ import annotations

from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fluxsr.backbones import loading
from fluxsr.backbones.device import best_device, best_dtype
from fluxsr.errors import InputError
from fluxsr.imaging import io
from fluxsr.options import UpscaleOptions
from fluxsr.pipeline import FluxSRPipeline

_DEFAULT = UpscaleOptions()


def load(
    model: str | Path = "bundled",
    *,
    adapter: str | PathLike[str] | bool | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    memory: str = "auto",
    config_folder: str | Path | None = None,
    compile: bool = False,
) -> FluxSRPipeline:
    """Load a model and its adapter onto a device, ready to run.

    The adapter is fused and the modulation is folded into constants. Where the model would not fit into the memory, it
    is quantized, gets smaller tiles, or is offloaded; ``plan`` of the pipeline tells. Its progress bar is off;
    ``set_progress_bar_config(disable=False)`` shows it.

    Args:
        model: "bundled", a folder in diffusers layout, a Hub id, or a transformer's file (GGUF, safetensors).
        adapter: folder, Hub id or ``fluxsr.Adapter``. None takes the one in the model's folder, False takes none.
        device: "auto" takes the first that is available of cuda, xpu, mps, cpu.
        dtype: "auto", "bf16", "fp16", "fp32" or a torch.dtype.
        memory: GPU memory budget: "auto" (what is free), "8gb", "12gb", "16gb", "24gb" or "max" (no savings).
        config_folder: for a transformer's file, the folder with configuration and autoencoder; None takes
            FLUX.1-dev's configuration, and ``ae.safetensors`` beside the file.
        compile: compile FLUX for a CUDA GPU. Images take less time, but the first takes most of a minute more. All get
            tiles of one size, which are reflected beyond the ends of smaller images.

    Raises:
        InputError: a device or dtype that is not available, too little memory, or no CUDA GPU to compile for.
        ModelError: a model or adapter that cannot be used.
    """
    target = best_device(device)
    plan = loading.plan_for(model, adapter, target, best_dtype(target, dtype), memory, config_folder, compile)
    parts = loading.load(
        *(model, adapter, target, plan.dtype),
        quantize=plan.quantize,
        offload=plan.offload,
        config_folder=config_folder,
        compiled=plan.compiled,
    )
    pipeline = FluxSRPipeline.of(parts, plan)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


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
    images = io.as_tensors(image)
    if isinstance(image, (list, tuple)) or len(images) != 1:
        raise InputError(f"image is a {type(image).__name__} of {len(images)}; upscale takes one, FluxSRPipeline more")
    return _bundled()(images[0], scale, **options).images[0]


@lru_cache(maxsize=1)
def _bundled() -> FluxSRPipeline:
    return load("bundled")
