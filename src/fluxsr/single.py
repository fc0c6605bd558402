"""``fluxsr.load``, which loads a model, and ``fluxsr.upscale``, which upscales one image with the bundled model."""

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
from fluxsr.pipeline import FluxSRPipeline


def load(
    model: str | Path = "bundled",
    *,
    adapter: str | PathLike[str] | bool | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    memory: str = "auto",
    config_folder: str | Path | None = None,
    compile: bool = False,
    vae: str | PathLike[str] | None = None,
) -> FluxSRPipeline:
    """Load a model and its adapter onto a device as a pipeline.

    The adapter is fused and the modulation is folded into constants. A model that does not fit into the memory is
    quantized, uses smaller tiles, or is offloaded. The pipeline's ``plan`` shows what was chosen. The progress bar is
    off, and ``set_progress_bar_config(disable=False)`` turns it on.

    Args:
        model: "bundled", a folder in diffusers layout, a Hub id, or a file with a transformer (GGUF, safetensors).
        adapter: folder, Hub id or ``fluxsr.Adapter``. None uses the adapter in the model's folder, False uses none.
        device: name or torch.device. "auto" is the first that is available of cuda, xpu, mps and cpu.
        dtype: "auto", "bf16", "fp16", "fp32" or a torch.dtype.
        memory: GPU memory budget, "auto" (free memory), "8gb", "12gb", "16gb", "24gb" or "max" (no savings).
        config_folder: folder with configuration and autoencoder, for a model in one file. None uses FLUX.1-dev's
            configuration, and ``ae.safetensors`` beside the file.
        compile: compile FLUX for a CUDA GPU. Images are faster, but the first one takes most of a minute more. All
            tiles have the same size, and smaller images are padded by reflection.
        vae: folder or Hub id of an autoencoder that replaces the model's, for speed (backbones/autoencoder.py).

    Raises:
        InputError: the device or dtype is not available, the memory is too small, or ``compile`` lacks a CUDA GPU.
        ModelError: the model or the adapter cannot be used.
    """
    target = best_device(device)
    plan = loading.plan_for(model, adapter, target, best_dtype(target, dtype), memory, config_folder, compile, vae)
    parts = loading.load(
        *(model, adapter, target, plan.dtype),
        quantize=plan.quantize,
        offload=plan.offload,
        config_folder=config_folder,
        compiled=plan.compiled,
        vae=vae,
    )
    pipeline = FluxSRPipeline.of(parts, plan)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def upscale(image: Any, scale: float | None = None, **options: Any) -> Image.Image:
    """Upscale one image with the bundled model, which is loaded once per process.

    Args:
        image: path, or one image in a form that ``FluxSRPipeline`` accepts. The colour profile and EXIF orientation of
            a file are applied, those of a PIL image are not.
        scale: upscaling factor from 1 to 8. None is 4, unless ``options`` give another size, such as ``width=3840``.
        options: options of ``FluxSRPipeline.__call__``, except ``output_type`` and ``return_dict``.

    Raises:
        InputError: the image or an argument cannot be used, or there are several images.
        ModelError: the bundled model is missing, or its values are not finite and not repaired.
    """
    for name in ("output_type", "return_dict"):
        if name in options:
            raise InputError(f"upscale returns a PIL image and has no option {name}; use FluxSRPipeline")
    if isinstance(image, (str, Path)):
        image = io.read(image).image
    images = io.as_tensors(image)
    if isinstance(image, (list, tuple)) or len(images) != 1:
        raise InputError(f"image is a {type(image).__name__} of {len(images)}; pass one image, or use FluxSRPipeline")
    return _bundled()(images[0], scale, **options).images[0]


@lru_cache(maxsize=1)
def _bundled() -> FluxSRPipeline:
    return load("bundled")
