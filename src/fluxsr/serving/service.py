"""Upscale one image for a job of a server, within the server's limits."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging import frames, io
from fluxsr.imaging.formats import format_of
from fluxsr.imaging.mask import masked
from fluxsr.imaging.picture import Picture
from fluxsr.options import UpscaleOptions
from fluxsr.pipeline import FluxSRPipeline
from fluxsr.processing import inputs, upscale_file
from fluxsr.processing.runner import ProgressCallback
from fluxsr.serving.batcher import Batcher
from fluxsr.serving.errors import ServiceError

_HELD_PIXELS = 8_000_000  # of a result that is held in one piece where several jobs run at the same time


@dataclass(frozen=True)
class UpscaledFile:
    """A result on disk, with sizes as (width, height) and notes on what it lacks."""

    path: Path
    before: tuple[int, int]
    after: tuple[int, int]
    notes: tuple[str, ...]
    seconds: float


class UpscaleService:
    """The loaded models of a server and its limits on pixels.

    Args:
        pipelines: models by the names that clients choose from.
        max_pixels: largest input in pixels.
        max_output_pixels: largest result in pixels.
        batcher: combines tiles of jobs that run at the same time; None if only one job runs.
    """

    def __init__(
        self,
        pipelines: Mapping[str, FluxSRPipeline],
        max_pixels: int,
        max_output_pixels: int,
        batcher: Batcher | None = None,
    ) -> None:
        self.pipelines, self.max_pixels, self.max_output_pixels = pipelines, max_pixels, max_output_pixels
        self._batcher = batcher

    def read(self, source: Path, mask: Path | Tensor | None = None) -> Picture:
        """Read an image that a client sent, and its mask.

        Raises:
            InputError: the image cannot be used.
        """
        return masked(io.read(source, self.max_pixels), mask, self.max_pixels)

    def pipeline(self, model: str) -> FluxSRPipeline:
        """Return a model by its name.

        Raises:
            InputError: no model has this name.
        """
        if model not in self.pipelines:
            raise InputError(f"there is no model '{model}'; choose one of {', '.join(self.pipelines)}")
        return self.pipelines[model]

    def result_size(self, size: tuple[int, int], options: UpscaleOptions, count: int = 1) -> tuple[int, int]:
        """Return the (width, height) of a result for an input of this (width, height) and number of frames.

        Raises:
            InputError: the size that is asked for does not fit the input.
            ServiceError: too_many_pixels.
        """
        height, width = options.size_of(size[1], size[0])
        if width * height * count > self.max_output_pixels:
            name, value = options.size
            share = self.max_output_pixels / (width * height * count)
            fits = value * (share if name == "megapixels" else share**0.5)
            fits = int(fits) if isinstance(value, int) else int(fits * 10) / 10
            raise ServiceError(
                "too_many_pixels",
                f"the result would have {f'{count} frames of ' if count > 1 else ''}{width}x{height} pixels; "
                f"the limit is {self.max_output_pixels}: "
                + (
                    f"choose {name} up to {fits:g}"
                    if math.prod(size) * count <= self.max_output_pixels
                    else "send a smaller image" + ", or choose first_frame" * (count > 1)
                ),
            )
        return width, height

    def upscale(
        self, picture: Picture, target: Path, options: UpscaleOptions, model: str, progress: ProgressCallback
    ) -> UpscaledFile:
        """Upscale an image and write the result.

        Args:
            picture: the image.
            target: the file to write.
            options: how the image is upscaled and written.
            model: name of the model.
            progress: called as the work goes on; an error that it raises ends the work.

        Raises:
            FluxSRError, ServiceError: the image cannot be upscaled or written.
        """
        started, batcher = time.monotonic(), self._batcher
        height, width = picture.lr.shape[-2:]
        options = options.model_copy(update={"max_pixels": self.max_pixels})
        count = frames.count(picture, format_of(target), options)
        after = self.result_size((width, height), options, count)
        with batcher.active_job() if batcher else nullcontext():
            write = upscale_file.upscale(
                *(self.pipeline(model), options, inputs.Job(picture.path, target), picture, progress),
                step=batcher.step if batcher else None,
                whole=_HELD_PIXELS if batcher else upscale_file.WHOLE,
                most=self.max_output_pixels,
            )
        notes = tuple(write())
        return UpscaledFile(target, (width, height), after, notes, time.monotonic() - started)
