"""Connect to a Ray cluster, or start one on this machine, and start workers on it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fluxsr.cluster.settings import Size
from fluxsr.errors import FluxSRError, InputError, first_line, is_untranslatable

_STORE = 80_000_000  # bytes of Ray's shared memory, which transfers paths and rows but no pixels
READ_AHEAD = 3  # images per worker with a GPU: one is read, one is upscaled, one is written


class Cluster:
    """A connected Ray cluster that starts workers, or an InputError if this machine is too small."""

    def __init__(self, size: Size) -> None:
        import ray

        self.ray = ray
        have = ray.cluster_resources()
        self.gpus = float(have.get("GPU", 0) > 0) if size.gpus_per_worker is None else size.gpus_per_worker
        self.cpus = size.cpus_per_worker
        fit = have.get("GPU", 0) / self.gpus if self.gpus else have.get("CPU", 0) / size.cpus_per_worker
        if not size.address and (fit < 1 or (size.workers or 1) > fit):
            raise InputError(
                f"{size.workers or 1} workers with {self.gpus:g} GPUs each were requested, but this machine has "
                f"{have.get('GPU', 0):g} GPUs; lower --workers or --gpus-per-worker"
            )
        self.workers = size.workers or max(1, int(fit))  # to start
        self.ahead = READ_AHEAD if self.gpus else 1  # images that a worker processes at once

    def start_worker(self, kind: type, *arguments: Any, **options: Any) -> Any:
        """Start a process with an object of a class; it ends with the driver."""
        actor: Any = self.ray.remote(kind)
        placed = actor.options(num_cpus=self.cpus, num_gpus=self.gpus, max_concurrency=self.ahead, max_restarts=0)
        return placed.remote(*arguments, **options)


@contextmanager
def connected(size: Size) -> Iterator[Cluster]:
    """Context manager for a cluster. Usage statistics and the dashboard are off.

    Raises:
        InputError: there is no cluster at the address, or it is too small.
        FluxSRError: Ray cannot be started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # Ray's default; setting it avoids a warning
    _check(size.address)
    ray = importlib.import_module("ray")
    options: dict[str, Any] = {"address": size.address}
    if not size.address:
        cpus = size.cpus_per_worker * (size.workers or max(1, (os.cpu_count() or 1) // size.cpus_per_worker))
        options = {"address": "local", "num_cpus": cpus, "object_store_memory": _STORE, "include_dashboard": False}
    # Ray's long messages about lost workers are discarded, because the dispatcher reports each in one line.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise InputError(f"no Ray cluster at '{size.address}'; start one with `ray start --head`") from error
        except Exception as error:  # such as a used port, a time-out or a version mismatch
            if is_untranslatable(error):
                raise
            raise FluxSRError(f"Ray cannot be started: {first_line(error)}") from error
        try:
            yield Cluster(size)
        finally:
            ray.shutdown()


def _check(address: str | None) -> None:
    """Raise an InputError if an address does not answer, because Ray would retry without end."""
    host, _, port = (address or "").partition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise InputError(f"no Ray cluster at '{address}': {error.strerror or error}") from error
