"""Metrics of the HTTP server for Prometheus."""

from __future__ import annotations

import time
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fluxsr.serving.jobs import STATES, JobStore

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        labels = ["route", "method", "status"]
        self._requests = Counter("fluxsr_requests", "Answered requests.", labels, registry=registry)
        self._seconds = Histogram(
            "fluxsr_request_seconds", "Time from request to answer.", ["route"], registry=registry, buckets=_SECONDS
        )
        self._jobs = Counter("fluxsr_jobs_worked", "Jobs that have run.", ["state"], registry=registry)
        self._work = Histogram("fluxsr_job_seconds", "Run time of a job.", registry=registry, buckets=_SECONDS)
        self._tiles = Counter("fluxsr_tiles", "Tiles that went through the model.", registry=registry)
        self._batches = Histogram(
            "fluxsr_batch_tiles", "Tiles of a forward pass.", registry=registry, buckets=(1, 2, 4, 8, 16, 32)
        )
        self._shared = Counter("fluxsr_shared_batches", "Forward passes for several jobs.", registry=registry)

    def watch(self, store: JobStore) -> None:
        """Read the state of a job store whenever the metrics are read."""
        states = Gauge("fluxsr_jobs", "Jobs by state.", ["state"], registry=self._registry)
        for state in STATES:
            states.labels(state).set_function(partial(store.count, state))
        depth = Gauge("fluxsr_queue_depth", "Jobs that wait for a worker.", registry=self._registry)
        depth.set_function(partial(store.count, "queued"))
        kept = Gauge("fluxsr_result_bytes", "Size of the results on disk.", registry=self._registry)
        kept.set_function(store.kept_bytes)

    def count_job(self, state: str, seconds: float) -> None:
        """Count a job that has run."""
        self._jobs.labels(state).inc()
        self._work.observe(seconds)

    def count_batch(self, tiles: int, requests: int) -> None:
        """Count a batch that is about to run."""
        self._tiles.inc(tiles)
        self._batches.observe(tiles)
        self._shared.inc(requests > 1)

    def count_request(self, scope: Scope, status: int, seconds: float) -> None:
        """Count an answered request. Clients could invent any number of paths and methods, so these get no label."""
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class CountRequests:
    """ASGI middleware that counts requests."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            self._metrics.count_request(scope, status, time.monotonic() - start)
