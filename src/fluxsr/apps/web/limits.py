"""What a visitor may ask of a page. Light to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for; the fields are options of ``fluxsr web``.

    Attributes:
        max_pixels: of a picture that comes in.
        max_output_pixels: of a result: what decides on time, memory and disk.
        max_upload: MB of one file.
        batch_limit: pictures of one batch.
        queue: visitors that wait; more are turned away.
        time_limit: seconds of one job, a picture or a batch.
    """

    max_pixels: int = 16_000_000
    max_output_pixels: int = 64_000_000
    max_upload: int = 100
    batch_limit: int = 20
    queue: int = 10
    time_limit: int = 600
