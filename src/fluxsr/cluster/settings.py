"""Options of ``fluxsr batch`` beside those of ``fluxsr upscale``. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

_cluster = partial(typer.Option, rich_help_panel="Cluster")
_manifest = partial(typer.Option, rich_help_panel="Manifest")


@dataclass(frozen=True)
class Size:
    """Size of a cluster. A cluster that this process starts also ends with it."""

    address: Annotated[
        str | None, _cluster(help="Address of a running Ray cluster, or 'auto'. Defaults to a cluster on this machine.")
    ] = None
    workers: Annotated[int | None, _cluster(min=1, help="Number of workers. Defaults to as many as fit.")] = None
    gpus_per_worker: Annotated[
        float | None, _cluster(min=0, help="GPUs per worker, may be a fraction. Defaults to 1 if there are GPUs.")
    ] = None
    cpus_per_worker: Annotated[int, _cluster(min=1, help="CPU cores per worker.")] = 1


@dataclass(frozen=True)
class BatchOptions:
    """How images are listed, retried and measured."""

    attempts: Annotated[int, _cluster(min=1, help="Maximum attempts per image.")] = 3
    timeout: Annotated[
        float, _cluster(min=0, help="Seconds without a result after which a worker is replaced; 0 means no limit.")
    ] = 0
    column: Annotated[str, _manifest(help="Column with the input paths. Defaults to 'path'.")] = ""
    output_column: Annotated[
        str, _manifest(help="Column with the output names. Defaults to 'output' if the manifest has it.")
    ] = ""
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Retry images that failed in earlier runs.")] = (
        False
    )
    measure: Annotated[bool, typer.Option(help="Estimate the quality of each result for the report.")] = True
