"""What a server counts, for Prometheus."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fluxsr.serving.api.desk import Desk
from fluxsr.serving.api.jobs import STATES

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """Counters of one server; a registry of their own, so that two servers in a process do not meet."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        labels = ["route", "method", "status"]
        self._requests = Counter("fluxsr_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "fluxsr_request_seconds", "From request to answer.", ["route"], registry=registry, buckets=_SECONDS
        )
        self._jobs = Counter("fluxsr_jobs_worked", "Jobs that were worked on.", ["state"], registry=registry)
        self._work = Histogram("fluxsr_job_seconds", "Work on a job.", registry=registry, buckets=_SECONDS)
        self._tiles = Counter("fluxsr_tiles", "Tiles that went through the model.", registry=registry)
        self._batches = Histogram(
            "fluxsr_batch_tiles", "Tiles of a forward pass.", registry=registry, buckets=(1, 2, 4, 8, 16, 32)
        )
        self._shared = Counter("fluxsr_shared_batches", "Forward passes of several jobs.", registry=registry)

    def watch(self, desk: Desk) -> None:
        """Ask a desk for its state whenever somebody asks for the metrics."""
        states = Gauge("fluxsr_jobs", "Jobs by state.", ["state"], registry=self._registry)
        for state in STATES:
            states.labels(state).set_function(partial(desk.count, state))
        depth = Gauge("fluxsr_queue_depth", "Jobs that wait for a worker.", registry=self._registry)
        depth.set_function(partial(desk.count, "queued"))
        kept = Gauge("fluxsr_result_bytes", "Results on the disk.", registry=self._registry)
        kept.set_function(desk.kept_bytes)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        method = method if method in _METHODS else "other"  # clients could invent as many
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def job(self, state: str, seconds: float) -> None:
        """A job ended."""
        self._jobs.labels(state).inc()
        self._work.observe(seconds)

    def batch(self, tiles: int, jobs: int) -> None:
        """A batch is about to run."""
        self._tiles.inc(tiles)
        self._batches.observe(tiles)
        self._shared.inc(jobs > 1)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
