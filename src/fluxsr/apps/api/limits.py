"""What a server takes on. Light: the command line has its defaults from here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on what clients can make a server hold.

    Attributes:
        max_bytes: of an uploaded image.
        max_pixels: of an uploaded image.
        max_output_pixels: of a result.
        sync_pixels: of a result; larger ones are jobs, even where the client would wait.
        upload_seconds: within which a body must be there.
        workers: jobs at work at the same time; their tiles go through one model.
        queue: jobs that wait; with more the answer is 429.
        batch: tiles per forward pass.
        batch_wait: seconds that a tile waits for others like it.
        keep_seconds: how long a result can be fetched.
        keep_bytes: of all kept results; with more the answer is 429 until some are fetched or expire.
        grace: seconds that running jobs and their clients have after SIGTERM.
    """

    max_bytes: int = 64 << 20
    max_pixels: int = 25_000_000
    max_output_pixels: int = 100_000_000
    sync_pixels: int = 16_000_000
    upload_seconds: float = 60
    workers: int = 4
    queue: int = 32
    batch: int = 4
    batch_wait: float = 0.01
    keep_seconds: float = 600
    keep_bytes: int = 2 << 30
    grace: float = 30

    @property
    def places(self) -> int:
        """Jobs that are taken on at the same time, those whose body still comes in included."""
        return self.workers + self.queue
