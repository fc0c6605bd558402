"""Ray, as far as a batch needs it: a cluster of this machine or one that runs, and workers on it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fluxsr.errors import FluxSRError, InputError, is_untranslatable

_STORE = 80_000_000  # bytes of Ray's shared memory: paths and rows go through it, never pixels
READ_AHEAD = 3  # images in the hands of a worker with a GPU: one is read, one at the model, one written


@dataclass(frozen=True)
class Size:
    """What a cluster's workers are.

    Attributes:
        address: of a cluster that runs, "auto" for that of this machine; None starts one that ends with the run.
        workers: how many; None takes as many as the cluster has GPUs or CPUs for.
        gpus: of each worker, parts allowed; None takes 1 where the cluster has some.
        cpus: of each worker, and the threads of its model.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float | None = None
    cpus: int = 1


class Cluster:
    """Hires workers.

    Args:
        size: as asked for.

    Attributes:
        workers: how many there shall be.
        ahead: images that each may have in its hands.
    """

    def __init__(self, size: Size) -> None:
        import ray

        self.ray = ray
        have = ray.cluster_resources()
        self.gpus = float(have.get("GPU", 0) > 0) if size.gpus is None else size.gpus
        self.cpus = size.cpus
        fit = have.get("GPU", 0) / self.gpus if self.gpus else have.get("CPU", 0) / size.cpus
        if not size.address and (fit < 1 or (size.workers or 1) > fit):
            raise InputError(
                f"{size.workers or 1} workers of {self.gpus:g} GPUs are asked for, and this machine has "
                f"{have.get('GPU', 0):g}; lower --workers or --gpus-per-worker"
            )
        self.workers = size.workers or max(1, int(fit))
        self.ahead = READ_AHEAD if self.gpus else 1

    def hire(self, kind: type, *arguments: Any, **options: Any) -> Any:
        """A new process with an object of the class; it ends with the driver."""
        actor: Any = self.ray.remote(kind)
        placed = actor.options(num_cpus=self.cpus, num_gpus=self.gpus, max_concurrency=self.ahead, max_restarts=0)
        return placed.remote(*arguments, **options)


@contextmanager
def connected(size: Size) -> Iterator[Cluster]:
    """A cluster for the time of a run; nothing is told to anybody, and no dashboard is started.

    Raises:
        InputError: there is no cluster at the address, or it is too small.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # as it is today, without the warning
    _check(size.address)
    ray = importlib.import_module("ray")
    options: dict[str, Any] = {"address": size.address}
    if not size.address:
        cpus = size.cpus * (size.workers or max(1, (os.cpu_count() or 1) // size.cpus))
        options = {"address": "local", "num_cpus": cpus, "object_store_memory": _STORE, "include_dashboard": False}
    # Ray prints what it thinks of a lost worker; we tell it in one line
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise InputError(f"no Ray cluster at '{size.address}'; start one with `ray start --head`") from error
        except Exception as error:  # of Ray's start: a port, a time-out, another version
            if is_untranslatable(error):
                raise
            raise FluxSRError(f"Ray cannot be started: {str(error).splitlines()[0]}") from error
        try:
            yield Cluster(size)
        finally:
            ray.shutdown()


def _check(address: str | None) -> None:
    """Ray would try an address at which nothing answers without end.

    Raises:
        InputError: nothing answers.
    """
    host, _, port = (address or "").partition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise InputError(f"no Ray cluster at '{address}': {error.strerror or error}") from error
