"""``fluxsr serve``: load the model and serve the HTTP API until a signal."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer
from prometheus_client import disable_created_metrics

from fluxsr.options import ModelOptions
from fluxsr.processing import upscale_file
from fluxsr.serving import server
from fluxsr.serving.batcher import Batcher
from fluxsr.serving.http_app import application
from fluxsr.serving.http_metrics import Metrics
from fluxsr.serving.jobs import JobStore
from fluxsr.serving.limits import HttpLimits
from fluxsr.serving.service import UpscaleService


def serve(
    model: ModelOptions,
    limits: HttpLimits,
    host: str,
    port: int,
    keys: Sequence[str],
    debug: bool,
    origins: Sequence[str] = (),
) -> None:
    """Load the model and serve until a signal.

    Raises:
        InputError: the address cannot be used.
        AcceleratorLost: the device failed while it served.
        ModelError: the model cannot be loaded.
    """
    upscale_file.quieten(limits.max_pixels, debug)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    with (
        server.listen(host, port) as listener,
        tempfile.TemporaryDirectory(prefix="fluxsr-serve-", ignore_cleanup_errors=True) as folder,
    ):
        pipeline = server.load(model)
        disable_created_metrics()  # they double the number of series, and nothing reads them
        metrics = Metrics()
        batch = min(limits.batch, pipeline.plan.batch_size or limits.batch)  # the plan's batch fits into the memory
        batcher = Batcher(pipeline.one_step, batch, limits.batch_wait, metrics.count_batch)
        service = UpscaleService({"model": pipeline}, limits.max_pixels, limits.max_output_pixels, batcher)
        store = JobStore(
            Path(folder),
            workers=limits.workers,
            places=limits.places,
            keep_seconds=limits.keep_seconds,
            keep_bytes=limits.keep_bytes,
            observe=metrics.count_job,
        )
        metrics.watch(store)
        app = application(store, service, metrics, limits, keys, origins)
        typer.echo(f"serving on {server.address_of(listener)}", err=True)
        try:
            server.run(server.Server(server.configured(app, debug), store, limits.grace), store, listener)
        finally:
            batcher.close()
