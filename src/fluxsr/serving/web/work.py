"""What is done behind a click: one picture and how it looked before, or many and their zip."""

from __future__ import annotations

import logging
import re
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from fluxsr.errors import AcceleratorLost, FluxSRError, InputError, is_out_of_memory, lost_accelerator
from fluxsr.imaging import io
from fluxsr.imaging.formats import following
from fluxsr.imaging.picture import Picture
from fluxsr.imaging.resize import scaled_size
from fluxsr.names import printable, raw
from fluxsr.options import UpscaleOptions
from fluxsr.pipeline import FluxSRPipeline
from fluxsr.processing import upscale_file
from fluxsr.processing.inputs import Job as Task
from fluxsr.processing.reporting import reason_of
from fluxsr.processing.runner import ProgressCallback
from fluxsr.serving.web.desk import Job, Stopped, TimeUp
from fluxsr.serving.web.limits import Limits

OFFERED = ("scale", "strength", "color_fix", "format", "strip_metadata", "strip_gps")
"""Options that the page has, in the order of its widgets."""
SHOWN = 12_000_000  # pixels of the comparison: phones do not show more, and the browser holds it twice
_FOLDERS = re.compile(r"(?<!\S)(?:[A-Za-z]:)?[\\/](?:[^\\/\s]+[\\/])*")  # of a path, all but the file's name
_NAME = 150  # bytes of a result's name before its suffix; file systems take 255

log = logging.getLogger(__name__)

Told = Callable[[float, str], None]
"""Tells how much is done, 0 to 1, and of what."""


@dataclass(frozen=True)
class Made:
    """A result: its file, sizes (width, height) before and after, notes on what was not kept."""

    path: Path
    before: tuple[int, int]
    after: tuple[int, int]
    notes: tuple[str, ...]
    seconds: float


@dataclass
class Batch:
    """A batch so far.

    Attributes:
        made: with the names of the inputs.
        bad: (name, reason), of those that failed.
        left: names of those that were not begun.
        why: the reason of that.
        zip: the file with what was made; None where nothing was.
    """

    made: list[tuple[str, Made]] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    why: str = ""
    zip: Path | None = None


class Studio:
    """The models, loaded once, and what they may be used for.

    Args:
        pipelines: by the names that visitors choose from.
        limits: of the page.
    """

    def __init__(self, pipelines: dict[str, FluxSRPipeline], limits: Limits) -> None:
        self.pipelines, self.limits = pipelines, limits

    def look(self, source: Path) -> Picture:
        """A picture that was sent.

        Raises:
            InputError: it cannot be used.
        """
        return io.read(source, self.limits.max_pixels)

    def options_of(self, values: Sequence[Any]) -> UpscaleOptions:
        """Return the options that a visitor chose; they are checked, because requests can be made without the page.

        Args:
            values: values of ``OFFERED``; an empty text stands for None.

        Raises:
            InputError: a value that cannot be used.
        """
        chosen: dict[str, Any] = {
            name: None if value == "" else value for name, value in zip(OFFERED, values, strict=True)
        }
        return UpscaleOptions(**chosen, max_pixels=self.limits.max_pixels)

    def one(
        self, source: Path, model: str, options: UpscaleOptions, job: Job, told: Told
    ) -> tuple[Made, tuple[Path, Path]]:
        """Enlarge one picture.

        Returns:
            The result, and two pictures of one size: the input enlarged by bicubic interpolation, and the result.

        Raises:
            FluxSRError: the input or a choice cannot be used, or the time is up.
            Stopped: it is not wanted any more.
        """
        pipeline = self._pipeline(model)
        (target,) = _targets([source], job.folder, options)
        made, picture = self._made(Task(source, target), pipeline, options, job, lambda part: told(part, source.name))
        return made, _compared(picture, made, job.folder)

    def many(self, sources: Sequence[Path], model: str, options: UpscaleOptions, job: Job, told: Told) -> Batch:
        """Enlarge several pictures; a bad one is noted and the others go on, a stop leaves what is made.

        Raises:
            InputError: too many, or a choice that cannot be used.
        """
        pipeline = self._pipeline(model)
        if len(sources) > self.limits.batch_limit:
            raise InputError(f"{len(sources)} pictures; this page takes up to {self.limits.batch_limit} at once")
        found = Batch()
        for number, (source, target) in enumerate(zip(sources, _targets(sources, job.folder, options), strict=True)):

            def advance(part: float, number: int = number, name: str = source.name) -> None:
                told((number + part) / len(sources), f"{name} ({number + 1} of {len(sources)})")

            try:
                found.made.append((source.name, self._made(Task(source, target), pipeline, options, job, advance)[0]))
            except (Stopped, TimeUp) as error:
                found.left = [left.name for left in sources[number:]]
                found.why = "stopped" if isinstance(error, Stopped) else str(error)
                break
            except Exception as error:
                if lost_accelerator(error):  # the others would fail too
                    raise
                found.bad.append((source.name, line_of(error, source)))
        found.zip = _zipped([made.path for _, made in found.made], job.folder / "fluxsr.zip")
        return found

    def _made(
        self, task: Task, pipeline: FluxSRPipeline, options: UpscaleOptions, job: Job, advance: ProgressCallback
    ) -> tuple[Made, Picture]:
        def checked(part: float) -> None:
            job.check()
            advance(part)

        began = time.monotonic()
        checked(0)
        picture = upscale_file.read(task, options)
        height, width = picture.lr.shape[-2:]
        after = self._allowed(width, height, options.scale)
        notes = upscale_file.upscale(pipeline, options, task, picture, checked)()
        return Made(task.target, (width, height), after, tuple(notes), time.monotonic() - began), picture

    def _pipeline(self, model: str) -> FluxSRPipeline:
        if model not in self.pipelines:
            raise InputError(f"there is no model '{model}' here; choose one of {', '.join(self.pipelines)}")
        return self.pipelines[model]

    def _allowed(self, width: int, height: int, scale: float) -> tuple[int, int]:
        """Size (width, height) of the result.

        Raises:
            InputError: more than the page makes.
        """
        tall, wide = scaled_size(height, width, scale)
        most = self.limits.max_output_pixels
        if tall * wide > most:
            fits = int((most / (width * height)) ** 0.5 * 10) / 10
            hint = f"choose a scale up to {fits:g}" if fits >= 1 else "make it smaller first"
            raise InputError(
                f"{width} x {height} pixels would become {wide} x {tall}; "
                f"this page makes up to {most / 1e6:g} million pixels: {hint}"
            )
        return wide, tall


def line_of(error: Exception, source: Path) -> str:
    """An error in one line for a visitor: no path of this machine, no option of its operator."""
    known = isinstance(error, FluxSRError) or is_out_of_memory(error)
    if not known:
        log.error("%s: %s", printable(source.name), error, exc_info=error)
    if isinstance(error, AcceleratorLost) or lost_accelerator(error):
        return "the server's accelerator failed; the page ends and has to be started again"
    if not known:
        return f"{printable(source.name)}: something went wrong here; the server's log says what"
    text = reason_of(error, source, "try a smaller scale or picture").split(" (CUDA", 1)[0]
    return _FOLDERS.sub("", text.replace(str(source.parent), "")).replace(" (--max-pixels)", "")


def _targets(sources: Sequence[Path], folder: Path, options: UpscaleOptions) -> list[Path]:
    """Names of results, no two alike on any file system."""
    taken: set[str] = set()
    targets = []
    for source in sources:
        stem = raw(source.stem)[:_NAME].decode(errors="ignore") + f"_x{options.scale:g}"
        ending, number = f".{options.format}" if options.format else following(source), 2
        name = f"{stem}{ending}"
        while name.casefold() in taken:
            name, number = f"{stem} ({number}){ending}", number + 1
        taken.add(name.casefold())
        targets.append(folder / name)
    return targets


def _compared(picture: Picture, made: Made, folder: Path) -> tuple[Path, Path]:
    width, height = made.after
    shrink = min(1, (SHOWN / (width * height)) ** 0.5)
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    shown = replace(picture, out_of_gamut=None).image, io.read(made.path, width * height).image
    paths = folder / "before.jpg", folder / "after.jpg"
    for image, path in zip(shown, paths, strict=True):
        image.resize(size, Image.Resampling.BICUBIC).save(path, quality=95, subsampling=0)
    return paths


def _zipped(paths: Sequence[Path], target: Path) -> Path | None:
    """Stored, not squeezed: pictures are small already. Each is deleted once it is in."""
    if not paths:
        return None
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as file:
        for path in paths:
            file.write(path, path.name)
            path.unlink()
    return target
