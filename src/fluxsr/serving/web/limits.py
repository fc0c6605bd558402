"""What a visitor may ask of a page. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


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

    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger pictures.")] = 16_000_000
    max_output_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger results.")] = 64_000_000
    max_upload: Annotated[int, typer.Option(min=1, help="MB of one file.")] = 100
    batch_limit: Annotated[int, typer.Option(min=1, help="Pictures of one batch.")] = 20
    queue: Annotated[int, typer.Option(min=1, help="Visitors that wait; one is served at a time.")] = 10
    time_limit: Annotated[int, typer.Option(min=1, help="Seconds of one picture, or one batch.")] = 600
