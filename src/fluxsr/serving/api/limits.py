"""What a server takes on. Light: its fields are options of ``fluxsr serve``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class Limits:
    """Bounds on what clients can make a server hold.

    Attributes:
        workers: jobs at work at the same time; their tiles go through one model.
        queue: jobs that wait; with more the answer is 429.
        batch: tiles per forward pass.
        batch_wait: seconds that a tile waits for others like it.
        max_bytes: of an uploaded image.
        max_pixels: of an uploaded image.
        max_output_pixels: of a result.
        max_tile: largest ``tile_size`` that a client may ask for, because memory grows with it.
        sync_pixels: of a result; larger ones are jobs, even where the client would wait.
        upload_seconds: within which a body must be there.
        keep_seconds: how long a result can be fetched.
        keep_bytes: of all kept results; with more the answer is 429 until some are fetched or expire.
        grace: seconds that running jobs and their clients have after SIGTERM.
    """

    workers: Annotated[int, typer.Option(min=1, max=64, help="Jobs at work at a time.")] = 4
    queue: Annotated[int, typer.Option(min=0, help="Jobs that wait; with more the answer is 429.")] = 32
    batch: Annotated[int, typer.Option(min=1, help="Tiles of all jobs per forward pass.")] = 4
    batch_wait: Annotated[float, typer.Option(min=0, help="Seconds a tile waits for its like.")] = 0.01
    max_bytes: Annotated[int, typer.Option(min=1, help="Of an image file.")] = 64 << 20
    max_pixels: Annotated[int, typer.Option(min=1, help="Of an image.")] = 25_000_000
    max_output_pixels: Annotated[int, typer.Option(min=1, help="Of a result.")] = 100_000_000
    max_tile: Annotated[int, typer.Option(min=1, help="Largest tile_size that a client may ask for.")] = 1024
    sync_pixels: Annotated[int, typer.Option(min=0, help="Larger results are jobs (202).")] = 16_000_000
    upload_seconds: Annotated[float, typer.Option(min=0.1, help="For a body to come in.")] = 60
    keep_seconds: Annotated[float, typer.Option(min=1, help="A job's result is kept.")] = 600
    keep_bytes: Annotated[int, typer.Option(min=1, help="Of all kept results.")] = 2 << 30
    grace: Annotated[float, typer.Option(min=0, help="Seconds for running jobs after SIGTERM.")] = 30

    @property
    def places(self) -> int:
        """Jobs that are taken on at the same time, those whose body still comes in included."""
        return self.workers + self.queue
