"""Limits of the two servers. Their fields are options of ``fluxsr serve`` and ``fluxsr web``; the module is light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class HttpLimits:
    """What clients of the HTTP API can make a server hold."""

    workers: Annotated[int, typer.Option(min=1, max=64, help="Jobs that run at the same time.")] = 4
    queue: Annotated[int, typer.Option(min=0, help="Jobs that may wait. Further requests are answered 429.")] = 32
    batch: Annotated[int, typer.Option(min=1, help="Tiles per forward pass, from all jobs together.")] = 4
    batch_wait: Annotated[float, typer.Option(min=0, help="Seconds that a tile waits for others of its shape.")] = 0.01
    max_bytes: Annotated[int, typer.Option(min=1, help="Largest image file in bytes.")] = 64 << 20
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse images of more pixels.")] = 25_000_000
    max_output_pixels: Annotated[int, typer.Option(min=1, help="Refuse results of more pixels.")] = 100_000_000
    max_tile: Annotated[int, typer.Option(min=1, help="Largest tile_size that a client may ask for.")] = 1024
    sync_pixels: Annotated[int, typer.Option(min=0, help="Larger results become jobs (202).")] = 16_000_000
    upload_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds in which a request body must arrive.")] = 60
    keep_seconds: Annotated[float, typer.Option(min=1, help="Seconds for which a result can be fetched.")] = 600
    keep_bytes: Annotated[int, typer.Option(min=1, help="Size of all kept results in bytes.")] = 2 << 30
    grace: Annotated[float, typer.Option(min=0, help="Seconds that running jobs have after SIGTERM.")] = 30

    @property
    def places(self) -> int:
        """Number of jobs that are accepted at the same time, including those whose body is still arriving."""
        return self.workers + self.queue


@dataclass(frozen=True)
class WebLimits:
    """What visitors of the web page may ask for."""

    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse images of more pixels.")] = 16_000_000
    max_output_pixels: Annotated[int, typer.Option(min=1, help="Refuse results of more pixels.")] = 64_000_000
    max_upload: Annotated[int, typer.Option(min=1, help="Largest image file in MB.")] = 100
    batch_limit: Annotated[int, typer.Option(min=1, help="Images in one batch.")] = 20
    queue: Annotated[int, typer.Option(min=1, help="Visitors that may wait. One is served at a time.")] = 10
    time_limit: Annotated[int, typer.Option(min=1, help="Seconds for one image or one batch.")] = 600
