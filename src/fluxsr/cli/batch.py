"""``fluxsr batch``: the arguments. Light to import."""

from __future__ import annotations

from typing import Annotated

import typer

from fluxsr.cli.arguments import Upscaling, spread
from fluxsr.cli.cli_errors import reported
from fluxsr.errors import needed

_CLUSTER, _SOURCE = "Cluster", "Source"  # panels of --help


@spread
def batch(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Folder, manifest (.csv, .parquet), or shards ('in/*.tar'); a path or s3://..."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder, or prefix such as s3://bucket/out.")],
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="How many; else what the cluster has room for.", rich_help_panel=_CLUSTER),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0, help="Of each worker, 0.5 for half of one; else 1 or none.", rich_help_panel=_CLUSTER),
    ] = None,
    cpus_per_worker: Annotated[
        int, typer.Option(min=1, help="Of each worker: the threads of its model.", rich_help_panel=_CLUSTER)
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(help="Of a Ray cluster that runs, or auto; else this machine.", rich_help_panel=_CLUSTER),
    ] = None,
    attempts: Annotated[
        int, typer.Option(min=1, help="Workers that one image may lose.", rich_help_panel=_CLUSTER)
    ] = 3,
    timeout: Annotated[
        float,
        typer.Option(min=0, help="Seconds without a result after which a worker is lost.", rich_help_panel=_CLUSTER),
    ] = 0,
    column: Annotated[str, typer.Option(help="Of a manifest: paths; else 'path'.", rich_help_panel=_SOURCE)] = "",
    output_column: Annotated[
        str, typer.Option(help="Of a manifest: names of outputs; else 'output', if any.", rich_help_panel=_SOURCE)
    ] = "",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")] = False,
    measure: Annotated[bool, typer.Option(help="Estimate the quality of each result, for the report.")] = True,
    typed: Upscaling,
) -> None:
    """Upscale an archive on several workers, of this machine or a Ray cluster; run again to resume."""
    with reported(typed.debug):
        needed("fluxsr batch", "ray", "ray", "pyarrow", "fsspec")  # before torch is loaded, which takes seconds
        from fluxsr.cluster.cluster import Size
        from fluxsr.cluster.run import Request, run

        request = Request(
            source=source,
            out=output,
            ending=f".{typed.format.value}" if typed.format else None,
            suffix=typed.suffix,
            columns=(column, output_column),
            overwrite=typed.overwrite,
            retry_failed=retry_failed,
            attempts=attempts,
            timeout=timeout,
            measure=measure,
        )
        whole = run(request, typed.options(), Size(address, workers, gpus_per_worker, cpus_per_worker))
    raise typer.Exit(0 if whole else 1)
