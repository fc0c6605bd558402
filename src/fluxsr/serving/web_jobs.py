"""The work behind the page: one image with its comparison, or a batch with its zip file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from fluxsr.errors import InputError, lost_accelerator
from fluxsr.imaging import io
from fluxsr.imaging.formats import following
from fluxsr.imaging.mask import as_masks
from fluxsr.imaging.picture import Picture
from fluxsr.names import raw
from fluxsr.options import SIZES, UpscaleOptions
from fluxsr.serving.errors import service_error
from fluxsr.serving.jobs import Cancelled, Job, TimeLimitExceeded
from fluxsr.serving.service import UpscaledFile, UpscaleService

OFFERED = (*SIZES, "strength", "color_fix", "wrap", "first_frame", "format", "strip_metadata", "strip_gps")
"""Options that the page offers, in the order of its widgets."""
_COMPARED_PIXELS = 12_000_000  # phones do not show larger images, and the browser holds two of them
_BRUSH_SIDE = 1024  # longer side of a painted mask, whose scaling softens its edges
_STROKES = 300_000  # characters, which bound the time to draw them
_NAME_BYTES = 150  # of a result's name before its suffix; file systems take 255


@dataclass(frozen=True)
class Brush:
    """What a visitor painted on an image: JSON [[width, x, y, ...], ...] in parts of its sides, and its weight."""

    strokes: str = ""
    weight: float = 0

    def mask(self, picture: Picture) -> Tensor | None:
        """Return the mask, which is 1 beside the strokes; None without any.

        Raises:
            InputError: the values did not come from the page.
        """
        if not self.strokes:
            return None
        height, width = picture.lr.shape[-2:]
        shrink = min(1, _BRUSH_SIDE / max(height, width))
        image = Image.new("L", (max(1, round(width * shrink)), max(1, round(height * shrink))), 255)
        pen = ImageDraw.Draw(image)
        try:
            fill = round(255 * min(max(self.weight, 0), 1))
            for line, *parts in json.loads(self.strokes[:_STROKES]):
                radius = min(max(line, 0), 0.5) * image.width / 2
                near = np.nan_to_num(np.array(parts, float).reshape(-1, 2)).clip(-1, 2)
                points = [(x, y) for x, y in (near * image.size).tolist()]
                pen.line(points, fill, round(2 * radius))
                for point in points:  # round ends and joints
                    pen.circle(point, radius, fill)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InputError("the strokes of the brush cannot be read; clear them and paint again") from error
        return as_masks(image, 1)[0]


@dataclass
class Batch:
    """The results of a batch so far.

    Attributes:
        done: results, by the names of their inputs.
        failed: (name, reason) of inputs that failed.
        left: names of inputs that were not begun.
        reason: why they were not.
        zip: file with the results; None if there are none.
    """

    done: list[tuple[str, UpscaledFile]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    reason: str = ""
    zip: Path | None = None


def options_of(values: Sequence[Any]) -> UpscaleOptions:
    """Return the options that a visitor chose; they are checked, because requests can be made without the page.

    Args:
        values: values of ``OFFERED``; an empty text stands for the default. Another size than 0 replaces the scale,
            whose slider always has a value.

    Raises:
        InputError: a value cannot be used.
    """
    chosen: dict[str, Any] = {name: value for name, value in zip(OFFERED, values, strict=True) if value != ""}
    sizes = {name: chosen.pop(name) for name in SIZES[1:] if chosen[name]}
    chosen |= dict.fromkeys(SIZES) | sizes if sizes else dict.fromkeys(SIZES[1:])
    return UpscaleOptions(**chosen)


def upscale_one(
    service: UpscaleService, source: Path, model: str, options: UpscaleOptions, job: Job, brush: Brush = Brush()
) -> tuple[UpscaledFile, tuple[Path, Path]]:
    """Upscale one image, but not where a visitor painted.

    Returns:
        The result, and two images of equal size for the comparison: the bicubic enlargement and the result.
    """
    picture = service.read(source)
    picture = replace(picture, mask=brush.mask(picture))
    (target,) = _targets([source], job.folder, options)
    found = service.upscale(
        picture, target, options, model, lambda done, part="": job.report(done, part or source.name)
    )
    return found, _comparison(picture, found, job.folder)


def upscale_batch(
    service: UpscaleService, sources: Sequence[Path], model: str, options: UpscaleOptions, job: Job
) -> Batch:
    """Upscale several images. A bad one does not stop the others; after a stop, the finished results are kept."""
    service.pipeline(model)  # a wrong name is the error of the batch, not of each image
    batch = Batch()
    for number, (source, target) in enumerate(zip(sources, _targets(sources, job.folder, options), strict=True)):

        def report(done: float, part: str = "", /, number: int = number, name: str = source.name) -> None:
            job.report((number + done) / len(sources), f"{name} ({number + 1} of {len(sources)}) {part}".rstrip())

        try:
            report(0)
            batch.done.append((source.name, service.upscale(service.read(source), target, options, model, report)))
        except (Cancelled, TimeLimitExceeded) as error:
            batch.left = [left.name for left in sources[number:]]
            batch.reason = "stopped" if isinstance(error, Cancelled) else str(error)
            break
        except Exception as error:
            if lost_accelerator(error):  # the other images would fail too
                raise
            batch.failed.append((source.name, service_error(error, job.folder).message))
    batch.zip = _zipped([found.path for _, found in batch.done], job.folder / "fluxsr.zip")
    return batch


def check_batch(sources: Sequence[Path], most: int) -> None:
    """Raise an InputError if a batch has too many images."""
    if len(sources) > most:
        raise InputError(f"the batch has {len(sources)} images; this page takes up to {most} at once")


def _targets(sources: Sequence[Path], folder: Path, options: UpscaleOptions) -> list[Path]:
    """Return names of results that differ on every file system."""
    taken: set[str] = set()
    targets = []
    for source in sources:
        stem = raw(source.stem)[:_NAME_BYTES].decode(errors="ignore") + options.size_in_name
        ending, number = f".{options.format}" if options.format else following(source), 2
        name = f"{stem}{ending}"
        while name.casefold() in taken:
            name, number = f"{stem} ({number}){ending}", number + 1
        taken.add(name.casefold())
        targets.append(folder / name)
    return targets


def _comparison(picture: Picture, found: UpscaledFile, folder: Path) -> tuple[Path, Path]:
    width, height = found.after
    shrink = min(1, (_COMPARED_PIXELS / (width * height)) ** 0.5)
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    shown = replace(picture, out_of_gamut=None).image, io.read(found.path, width * height).image
    paths = folder / "before.jpg", folder / "after.jpg"
    for image, path in zip(shown, paths, strict=True):
        image.resize(size, Image.Resampling.BICUBIC).save(path, quality=95, subsampling=0)
    return paths


def _zipped(paths: Sequence[Path], target: Path) -> Path | None:
    """Move files into a zip file without compression, because images are compressed already."""
    if not paths:
        return None
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as file:
        for path in paths:
            file.write(path, path.name)
            path.unlink()
    return target
