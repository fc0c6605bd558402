"""Worker of a cluster: it loads a model and upscales images from and to storage. It does not depend on Ray."""

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
from fluxsr.cluster.quality import measured
from fluxsr.cluster.report import DONE, FAILED, Row, blank, journal_name, journalled, output_name
from fluxsr.cluster.storage import Full, Storage, is_local, opened
from fluxsr.errors import AcceleratorLost, InputError, OutputError, lost_accelerator
from fluxsr.names import printable
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing import upscale_file
from fluxsr.processing.inputs import Job
from fluxsr.processing.reporting import reason_of
from fluxsr.processing.runner import no_room


class Worker:
    """Worker that upscales one image at a time. Concurrent calls overlap reading and writing with the model's work.

    Args:
        model, options: which model is loaded, and how images are upscaled.
        out: path or URL of the output folder.
        threads: number of CPU threads.
        measure: whether to estimate each result's quality.
    """

    def __init__(
        self, model: ModelOptions, options: UpscaleOptions, out: str, *, threads: int = 1, measure: bool = True
    ) -> None:
        self.model, self.options, self.measure = model, options, measure
        self.out = Storage(out)
        self.name = f"{socket.gethostname()}/{os.getpid()}"
        self._model = threading.Lock()
        self._pipeline: Any = None
        upscale_file.quieten(options.max_pixels)
        torch.set_num_threads(threads)

    def load(self) -> tuple[str, str]:
        """Load the model. Return one line about the model and one about its memory plan.

        Raises:
            InputError, ModelError: the model cannot be loaded.
        """
        self._pipeline = upscale_file.load(self.model)
        return upscale_file.describe(self._pipeline), self._pipeline.plan.line()

    def upscale(self, item: Item, fingerprint: str, attempt: int = 1) -> Row:
        """Upscale one image, write its row into the journal and its output into the output folder; return the row.

        Errors of the image itself are recorded in the row. ``attempt`` counts from 1.

        Raises:
            Full: the output storage is full.
            OutputError: the output cannot be written.
        """
        if attempt > 1 and (row := journalled(self.out, item, fingerprint)):
            return row  # the worker of an earlier attempt was lost after it had written the output
        row = {**blank(item, fingerprint), "attempts": attempt, "worker": self.name}
        try:
            with self.out.scratch() as folder:
                self._upscale(item, row, folder)
        except OutputError as error:
            if no_room(error):
                raise Full(str(error)) from error
            raise
        return row

    def _upscale(self, item: Item, row: Row, folder: Path) -> None:
        mask = Path(item.mask) if item.mask else None
        job = Job(_local_path(item, folder), folder / f"out{Path(item.name).suffix}", mask)
        name = output_name(item)
        try:
            row |= self._result(item, job)
            row["status"] = DONE
        except Exception as error:
            if lost := lost_accelerator(error):  # this worker is replaced, and another retries the image
                print(f"error: {self.name}: {AcceleratorLost(lost)}", file=sys.stderr, flush=True)
                os._exit(1)
            if no_room(error):
                raise
            text = reason_of(error, job.source, upscale_file.LABELS.memory).replace(
                str(job.target), self.out.url(item.name)
            )
            row |= {"status": FAILED, "error": text.replace(printable(str(job.source)), printable(item.label))}
        row["finished"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        if item.again:  # otherwise the new row could match an older output
            self.out.remove([name])
        self.out.write(journal_name(item.name), json.dumps(row).encode())
        if row["status"] == DONE:
            self.out.put(job.target, name)

    def _result(self, item: Item, job: Job) -> Row:
        """Write the output into the scratch folder and return the columns of the row."""
        start = time.perf_counter()
        _fetch(item, job.source)
        picture = upscale_file.read(job, self.options)
        read = time.perf_counter()
        with self._model:
            begun = time.perf_counter()
            write = upscale_file.upscale(self._pipeline, self.options, job, picture, lambda *_: None)
            done = time.perf_counter()
        notes = write()
        written = time.perf_counter()
        height, width = picture.lr.shape[-2:]
        height_out, width_out = self.options.size_of(height, width)
        row: Row = {
            "notes": "; ".join(notes) or None,
            "width_in": width,
            "height_in": height,
            "width_out": width_out,
            "height_out": height_out,
            "bytes_in": job.source.stat().st_size,
            "bytes_out": job.target.stat().st_size,
            "read_seconds": read - start,
            "model_seconds": done - begun,
            "write_seconds": written - done,
        }
        if self.measure:
            pixels = width_out * height_out + 1_000_000
            if pixels <= upscale_file.WHOLE:  # larger results are never held in memory as a whole
                row |= measured(picture.lr, job.target, pixels)
            row["measure_seconds"] = time.perf_counter() - written
        return row


def _local_path(item: Item, folder: Path) -> Path:
    """Return the local path of an image: a local file itself, or a file in the scratch folder to be fetched."""
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
        raise InputError(f"{to} cannot be read: {error}") from error
