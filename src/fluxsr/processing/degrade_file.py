"""Degrade one file, for ``fluxsr degrade`` and for benchmarks without LR images."""

from __future__ import annotations

import hashlib
from functools import partial

import torch
from PIL import Image

from fluxsr import degradation
from fluxsr.degradation import DegradationSettings
from fluxsr.errors import InputError
from fluxsr.imaging import io
from fluxsr.imaging.atomic import check_writable
from fluxsr.names import raw
from fluxsr.processing.inputs import Job
from fluxsr.processing.runner import Write


def read_hr(job: Job) -> Image.Image:
    """Read a photograph as 8-bit sRGB, after checking that the output can be written."""
    check_writable(job.target)
    return io.read(job.source).image


def degraded(job: Job, photograph: Image.Image, settings: DegradationSettings, seed: int) -> Write:
    """Crop a photograph to a multiple of the scale and degrade it; return the function that writes the result.

    Raises:
        InputError: the image is smaller than the scale.
    """
    hr = io.to_tensor(photograph)
    height, width = (side - side % settings.scale for side in hr.shape[-2:])
    if not height or not width:
        raise InputError(f"{hr.shape[-1]}x{hr.shape[-2]} pixels are too few to be reduced by {settings.scale}")
    generator = torch.Generator().manual_seed(keyed_seed(seed, job.source.name))
    lr = io.to_pil(degradation.degrade(hr[..., :height, :width], settings, generator))
    return partial(io.write, lr, job.target)


def keyed_seed(seed: int, name: str) -> int:
    """Return a seed of 63 bits for a file name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(raw(f"{seed}/{name}")).digest()[:8], "big") >> 1
