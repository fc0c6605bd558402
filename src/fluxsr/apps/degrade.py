"""``fluxsr degrade``: low-resolution partners of photographs, by the degradation that training uses."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated

import typer

from fluxsr.apps.about import reported
from fluxsr.apps.arguments import Debug, Format, Inputs, Output, Overwrite, Suffix, planned
from fluxsr.apps.jobs import Job
from fluxsr.names import raw

if TYPE_CHECKING:
    from PIL import Image

    from fluxsr.apps.runner import Write
    from fluxsr.degradation import DegradationSettings


def degrade(
    inputs: Inputs,
    output: Output,
    preset: Annotated[
        str, typer.Option(help="realesrgan, stablesr, mild, bicubic, or a YAML file (docs/degradation.md).")
    ] = "realesrgan",
    seed: Annotated[int, typer.Option(help="With the name of a file, all its randomness.")] = 0,
    scale: Annotated[int | None, typer.Option(min=1, max=16, help="HR side over LR side; else the preset's.")] = None,
    format: Annotated[Format | None, typer.Option(help="Of the outputs in a folder; png if not given.")] = None,
    suffix: Suffix = "",
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Degrade images. An image's result depends on the seed and its file name, not on the files beside it."""
    work = planned(inputs, output, format, suffix, default=Format.png)  # a second loss would not be of the preset's
    with reported(debug):
        from dataclasses import replace

        from fluxsr.apps.reporting import Words
        from fluxsr.apps.runner import Stages, run_jobs
        from fluxsr.degradation import load_settings

        settings = load_settings(preset)
        if scale is not None:
            settings = replace(settings, scale=scale)
        report = run_jobs(
            work,
            lambda _console: Stages(read_hr, lambda job, hr, _share: degraded(job, hr, settings, seed)),
            Words("degrade", "degraded"),
            settings={"seed": seed, "degradation": settings},
            overwrite=overwrite,
            debug=debug,
        )
    raise typer.Exit(1 if report.bad else 0)


def read_hr(job: Job) -> Image.Image:
    """The photograph as 8-bit sRGB, once it is clear that the output can be written."""
    from fluxsr.imaging import io
    from fluxsr.imaging.atomic import check_writable

    check_writable(job.target)
    return io.read(job.source).image


def degraded(job: Job, photograph: Image.Image, settings: DegradationSettings, seed: int) -> Write:
    """One file: crop to a multiple of the scale (the top left stays), degrade; gives what writes it.

    Raises:
        InputError: the image is smaller than the scale.
    """
    import torch

    from fluxsr import degradation
    from fluxsr.errors import InputError
    from fluxsr.imaging import io

    hr = io.to_tensor(photograph)
    height, width = (side - side % settings.scale for side in hr.shape[-2:])
    if not height or not width:
        raise InputError(f"{hr.shape[-1]}x{hr.shape[-2]} pixels are too few to be reduced by {settings.scale}")
    generator = torch.Generator().manual_seed(keyed_seed(seed, job.source.name))
    lr = io.to_pil(degradation.degrade(hr[..., :height, :width], settings, generator))

    def write() -> tuple[()]:
        io.write(lr, job.target)
        return ()

    return write


def keyed_seed(seed: int, name: str) -> int:
    """A seed of 63 bits for a file, the same on every machine."""
    return int.from_bytes(hashlib.sha256(raw(f"{seed}/{name}")).digest()[:8], "big") >> 1
