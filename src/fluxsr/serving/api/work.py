"""What becomes of a job: the road of the command line, with tiles that go through the batcher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fluxsr.imaging import io
from fluxsr.processing import inputs, upscale_file
from fluxsr.serving.api.batcher import Batcher
from fluxsr.serving.api.jobs import Cancelled, Job
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.options import ending
from fluxsr.serving.api.problems import Problem

if TYPE_CHECKING:
    from fluxsr.pipeline import FluxSRPipeline

WHOLE = 8_000_000  # pixels of a result above which it is not held in one piece: several are at work at a time


def worker(pipeline: FluxSRPipeline, batcher: Batcher, limits: Limits) -> Callable[[Job], tuple[Path, list[str]]]:
    """What ``Desk`` calls in its threads."""

    def work(job: Job) -> tuple[Path, list[str]]:
        def advance(part: float) -> None:
            job.progress = part
            if job.stop.is_set():
                raise Cancelled

        picture = io.read(job.folder / "image", limits.max_pixels)
        height, width = picture.lr.shape[-2:]
        check_output((width, height), job.options.scale, limits)  # the header of a few formats does not tell
        advance(0)
        target = job.folder / f"result{ending(job.options, picture.format)}"
        with batcher.riding():
            write = upscale_file.upscale(
                *(pipeline, job.options, inputs.Job(picture.path, target), picture, advance),
                step=batcher.step,
                whole=WHOLE,
            )
        return target, list(write())

    return work


def check_output(size: tuple[int, int], scale: float, limits: Limits) -> None:
    """Refuse a result that would be too large.

    Args:
        size: (width, height) of the image.
        scale: asked for.
        limits: ``max_output_pixels``.

    Raises:
        Problem: too_many_pixels.
    """
    width, height = (round(side * scale) for side in size)
    if width * height > limits.max_output_pixels:
        raise Problem(
            "too_many_pixels",
            f"the result would have {width}x{height} pixels; the limit is {limits.max_output_pixels}: "
            "send a smaller image or scale",
        )
