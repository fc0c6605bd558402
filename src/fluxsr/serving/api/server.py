"""The process: model, threads, uvicorn, and an end that loses no work it could have finished."""

from __future__ import annotations

import logging
import math
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import typer
import uvicorn
from prometheus_client import disable_created_metrics

from fluxsr.errors import AcceleratorLost, InputError
from fluxsr.options import ModelOptions
from fluxsr.processing import upscale_file
from fluxsr.serving.api.application import application
from fluxsr.serving.api.batcher import Batcher
from fluxsr.serving.api.desk import Desk
from fluxsr.serving.api.jobs import Job
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.metrics import Metrics
from fluxsr.serving.api.work import worker

_ANSWERS = 5  # seconds for answers that are on their way when all else is over


class Server(uvicorn.Server):
    """uvicorn, but for its end: a first signal hands back what waits and finishes what runs, a second one stops now.

    A lost accelerator ends it as a first signal does, with a short grace: nothing that runs can be finished.
    """

    def __init__(self, config: uvicorn.Config, desk: Desk, grace: float) -> None:
        super().__init__(config)
        self._desk, self._grace = desk, grace

    async def startup(self, sockets: Any = None) -> None:
        """Also tell where it listens, which ``--port 0`` leaves to the system."""
        await super().startup(sockets)
        for server in self.servers:
            for socket in server.sockets:
                host, port = socket.getsockname()[:2]
                typer.echo(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}", err=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not uvicorn's, which would close the door to clients that come for their results."""
        if self._desk.draining:
            self.should_exit = True
            return
        typer.echo(f"stopping: running jobs have {self._grace:g} s; once more stops now", err=True)
        self._begin_to_drain(self._grace)

    async def on_tick(self, counter: int) -> bool:
        """Also look whether the accelerator is lost."""
        if self._desk.lost and not self._desk.draining:
            self._begin_to_drain(min(self._grace, _ANSWERS))
        return await super().on_tick(counter)

    def _begin_to_drain(self, grace: float) -> None:
        self._desk.draining = True
        threading.Thread(target=self._drain, args=(grace,), name="drain", daemon=True).start()

    def _drain(self, grace: float) -> None:
        running, end = self._desk.drain(), time.monotonic() + grace
        while any(_awaited(job) for job in running) and time.monotonic() < end and not self.should_exit:
            time.sleep(0.05)
        if not self.should_exit:  # results that are going out have the rest of the time
            self.config.timeout_graceful_shutdown = max(_ANSWERS, math.ceil(end - time.monotonic()))
        self._desk.close(wait=False)
        self.should_exit = True


def _awaited(job: Job) -> bool:
    """Whether it is not finished, or its client has not got the result yet."""
    return job.ended is None or (job.kept and not job.fetched)


def serve(model: ModelOptions, limits: Limits, host: str, port: int, keys: Sequence[str], debug: bool) -> None:
    """Load the model and serve until a signal.

    Raises:
        InputError: an address that cannot be had.
        AcceleratorLost: the device failed while it served.
        ModelError: the model cannot be loaded.
    """
    upscale_file.quieten(limits.max_pixels, debug)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    pipeline = upscale_file.load(model)
    typer.echo(f"model: {upscale_file.describe(pipeline)}", err=True)
    typer.echo(f"plan: {pipeline.plan.line()}", err=True)
    disable_created_metrics()  # a second series beside every counter, which nothing reads
    metrics = Metrics()
    most = min(limits.batch, pipeline.plan.batch_size or limits.batch)  # the plan's fit the memory, or compiled code
    batcher = Batcher(pipeline.one_step, most, limits.batch_wait, metrics.batch)
    with tempfile.TemporaryDirectory(prefix="fluxsr-serve-", ignore_cleanup_errors=True) as folder:
        desk = Desk(worker(pipeline, batcher, limits), limits, Path(folder), metrics.job)
        metrics.watch(desk)
        config = uvicorn.Config(
            application(desk, metrics, limits, keys),
            host=host,
            port=port,
            log_level="info" if debug else "warning",
            timeout_graceful_shutdown=_ANSWERS,
            server_header=False,
        )
        try:
            Server(config, desk, limits.grace).run()
        except SystemExit as error:  # uvicorn has said why
            raise InputError(f"{host}:{port} cannot be served on; choose another --host or --port") from error
        finally:
            desk.close()
            batcher.close()
    if desk.lost:
        raise AcceleratorLost(desk.lost)
