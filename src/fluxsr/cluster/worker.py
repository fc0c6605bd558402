"""One worker: a model, and the road of an image from its store and back. Knows no Ray; a cluster holds several."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from fluxsr.cluster.items import Item
from fluxsr.cluster.places import Full, Place, is_local, opened
from fluxsr.cluster.quality import measured
from fluxsr.cluster.report import DONE, FAILED, Row, blank, journal_name, journalled, place_of
from fluxsr.errors import AcceleratorLost, InputError, OutputError, lost_accelerator
from fluxsr.imaging.picture import Picture
from fluxsr.names import printable
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing import upscale_file
from fluxsr.processing.inputs import Job
from fluxsr.processing.reporting import reason_of
from fluxsr.processing.runner import no_room


class Worker:
    """Upscales images one after the other; they are read and written beside the model's work if calls overlap.

    Args:
        model: which model is loaded, and how.
        options: how each image is upscaled and written.
        out: path or URL of the output place.
        threads: of a CPU's work.
        measure: whether to estimate each result's quality.
    """

    def __init__(
        self, model: ModelOptions, options: UpscaleOptions, out: str, *, threads: int = 1, measure: bool = True
    ) -> None:
        self.model, self.options, self.measure = model, options, measure
        self.out = Place(out)
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self._model = threading.Lock()
        self._pipeline: Any = None
        upscale_file.quieten(options.max_pixels)
        torch.set_num_threads(threads)

    def load(self) -> tuple[str, str]:
        """Load the model; it and the plan, each in a line.

        Raises:
            InputError, ModelError: it cannot be loaded.
        """
        self._pipeline = upscale_file.load(self.model)
        return upscale_file.describe(self._pipeline), self._pipeline.plan.line()

    def upscale(self, item: Item, made: str, attempt: int = 1) -> Row:
        """Do one image: its row is in the journal, and its output in its place, when this returns.

        What is wrong with the image is in the row.

        Args:
            item: the image.
            made: of the report: what the result depends on.
            attempt: counted from 1.

        Raises:
            Full: the output place takes nothing more.
            OutputError: it does not take this.
        """
        if attempt > 1 and (row := journalled(self.out, item, made)):
            return row  # its worker was lost after the work, before it could tell
        row = {**blank(item, made), "attempts": attempt, "worker": self.name}
        try:
            with self.out.scratch() as folder:
                self._upscale(item, row, folder)
        except OutputError as error:
            if no_room(error):
                raise Full(str(error)) from error
            raise
        return row

    def _upscale(self, item: Item, row: Row, folder: Path) -> None:
        job = Job(_fetched_to(item, folder), folder / f"out{Path(item.name).suffix}")
        name = place_of(item)
        try:
            row |= self._result(item, job)
            row["status"] = DONE
        except Exception as error:
            if lost := lost_accelerator(error):  # the image is tried again by another worker, and this one replaced
                print(f"error: {self.name}: {AcceleratorLost(lost)}", file=sys.stderr, flush=True)
                os._exit(1)
            if no_room(error):
                raise
            text = reason_of(error, job.source, upscale_file.LABELS.memory).replace(
                str(job.target), self.out.url(item.name)
            )
            row |= {"status": FAILED, "error": text.replace(printable(str(job.source)), printable(item.label))}
        row["finished"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        if item.again:  # or a row without its output might find an older one
            self.out.remove([name])
        self.out.write(journal_name(item.name), json.dumps(row).encode())
        if row["status"] == DONE:
            self.out.put(job.target, name)

    def _result(self, item: Item, job: Job) -> Row:
        """Make the output in the scratch folder; what there is to report of it."""
        start = time.perf_counter()
        _fetch(item, job.source)
        picture = upscale_file.read(job, self.options)
        read = time.perf_counter()
        with self._model:
            begun = time.perf_counter()
            write = upscale_file.upscale(self._pipeline, self.options, job, picture, lambda _: None)
            done = time.perf_counter()
        notes = write()
        written = time.perf_counter()
        height, width = picture.lr.shape[-2:]
        row: Row = {"width_in": width, "height_in": height, "notes": "; ".join(notes) or None}
        row |= {"bytes_in": job.source.stat().st_size, "bytes_out": job.target.stat().st_size}
        row |= {"width_out": round(width * self.options.scale), "height_out": round(height * self.options.scale)}
        row |= {"read_seconds": read - start, "model_seconds": done - begun, "write_seconds": written - done}
        if self.measure:
            row |= self._measured(picture, job.target)
            row["measure_seconds"] = time.perf_counter() - written
        return row

    def _measured(self, picture: Picture, output: Path) -> Row:
        pixels = round(picture.lr[0, 0].numel() * self.options.scale**2) + 1_000_000
        if pixels > upscale_file.WHOLE:  # it was not held in one piece for a reason
            return {}
        return dict(measured(picture.lr, output, pixels))


def _fetched_to(item: Item, folder: Path) -> Path:
    """Where an image's bytes are once it is fetched: files of this machine are read where they lie."""
    fs, path = opened(item.source)
    return Path(path) if is_local(fs) and not item.member else folder / f"in{Path(item.member or path).suffix}"


def _fetch(item: Item, to: Path) -> None:
    fs, path = opened(item.source)
    if to == Path(path):
        return
    try:
        if item.member:
            to.write_bytes(fs.cat_file(path, start=item.start, end=item.start + item.size))
        else:
            fs.get_file(path, str(to))
    except FileNotFoundError as error:
        raise InputError(f"{to} does not exist") from error
    except PermissionError as error:
        raise InputError(f"{to} may not be read: {error}") from error
