"""The process of both servers: bind the port, load the model, run uvicorn, and end without losing finished work."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from types import FrameType
from typing import Any

import typer
import uvicorn

from fluxsr.errors import AcceleratorLost, InputError
from fluxsr.options import ModelOptions
from fluxsr.pipeline import FluxSRPipeline
from fluxsr.processing import upscale_file
from fluxsr.serving.jobs import Job, JobStore

_ANSWER_SECONDS = 5  # for answers that are still being sent when all else has ended


class Server(uvicorn.Server):
    """uvicorn with another end: the first signal finishes what runs and fails what waits, the second stops now.

    A lost accelerator ends the server as the first signal does, within a few seconds.

    Args:
        config: uvicorn's configuration.
        store: the jobs.
        grace: seconds that running jobs and their clients have after the first signal.
    """

    def __init__(self, config: uvicorn.Config, store: JobStore, grace: float = 0) -> None:
        super().__init__(config)
        self._store, self._grace = store, grace

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal; uvicorn's own method would refuse clients that come to fetch their results."""
        if self._store.draining:
            self.force_exit, self.should_exit = self.should_exit, True
            return
        if self._grace:
            typer.echo(f"stopping: running jobs have {self._grace:g} s; a second signal stops now", err=True)
        self._begin_to_drain(self._grace)

    async def on_tick(self, counter: int) -> bool:
        """Also end after the accelerator is lost."""
        if self._store.lost and not self._store.draining:
            self._begin_to_drain(min(self._grace, _ANSWER_SECONDS))
        return await super().on_tick(counter)

    def _begin_to_drain(self, grace: float) -> None:
        self._store.draining = True
        threading.Thread(target=self._drain, args=(grace,), name="drain", daemon=True).start()

    def _drain(self, grace: float) -> None:
        running, end = self._store.drain(), time.monotonic() + grace
        while any(is_awaited(job) for job in running) and time.monotonic() < end and not self.should_exit:
            time.sleep(0.05)
        if not self.should_exit:  # results that are being sent have the rest of the time
            self.config.timeout_graceful_shutdown = max(_ANSWER_SECONDS, math.ceil(end - time.monotonic()))
        self._store.close(wait=False)
        self.should_exit = True


def is_awaited(job: Job) -> bool:
    """Return whether a job has not ended, or its client has not fetched the result yet."""
    return job.ended is None or (job.kept and not job.fetched)


def configured(app: Any, debug: bool = False, **options: Any) -> uvicorn.Config:
    """Return uvicorn's configuration for an application."""
    level = "info" if debug else "warning"
    limit = _ANSWER_SECONDS
    return uvicorn.Config(app, log_level=level, timeout_graceful_shutdown=limit, server_header=False, **options)


def run(server: Server, store: JobStore, listener: socket.socket) -> None:
    """Serve until a signal.

    Raises:
        AcceleratorLost: the device failed in the meantime.
    """
    try:
        server.run(sockets=[listener])
    finally:
        store.close()
    if store.lost:
        raise AcceleratorLost(store.lost)


def load(model: ModelOptions) -> FluxSRPipeline:
    """Load a model and say on stderr what was loaded."""
    pipeline = upscale_file.load(model)
    typer.echo(f"model: {upscale_file.describe(pipeline)}", err=True)
    typer.echo(f"plan: {pipeline.plan.line()}", err=True)
    return pipeline


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; called before a model is loaded, which may take minutes.

    Raises:
        InputError: the address is in use or does not belong to this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        if os.name == "posix":  # on Windows it would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        return listener
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port"
        ) from error


def address_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
