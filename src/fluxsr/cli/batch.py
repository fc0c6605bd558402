"""``fluxsr batch``: the arguments. Light to import."""

from __future__ import annotations

from typing import Annotated

import typer

from fluxsr.cli.arguments import Debug, Overwrite, expand_dataclass_options
from fluxsr.cli.cli_errors import report_errors
from fluxsr.errors import needed
from fluxsr.options import ModelOptions, UpscaleOptions

_CLUSTER, _SOURCE = "Cluster", "Source"  # panels of --help


@expand_dataclass_options
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
        typer.Option(
            min=1, help="Number of workers. Defaults to as many as the cluster has room for.", rich_help_panel=_CLUSTER
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GPUs of each worker; 0.5 shares one between two. Defaults to 1 if there are GPUs.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    cpus_per_worker: Annotated[
        int,
        typer.Option(
            min=1, help="CPU cores of each worker, which are the threads of its model.", rich_help_panel=_CLUSTER
        ),
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray cluster, or auto. Defaults to this machine.", rich_help_panel=_CLUSTER
        ),
    ] = None,
    attempts: Annotated[int, typer.Option(min=1, help="Maximum attempts per image.", rich_help_panel=_CLUSTER)] = 3,
    timeout: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds without a result after which a worker counts as lost; 0 waits for ever.",
            rich_help_panel=_CLUSTER,
        ),
    ] = 0,
    column: Annotated[
        str, typer.Option(help="Manifest column of the paths. Defaults to 'path'.", rich_help_panel=_SOURCE)
    ] = "",
    output_column: Annotated[
        str,
        typer.Option(
            help="Manifest column of the output names. Defaults to 'output', if it exists.", rich_help_panel=_SOURCE
        ),
    ] = "",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try images again that failed before.")] = False,
    measure: Annotated[bool, typer.Option(help="Estimate the quality of each result for the report.")] = True,
    model: ModelOptions,
    options: UpscaleOptions,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Upscale an archive on several workers, of this machine or a Ray cluster; run again to resume."""
    with report_errors(debug):
        needed("fluxsr batch", "ray", "ray", "pyarrow", "fsspec")  # before torch is loaded, which takes seconds
        from fluxsr.cluster.cluster import Size
        from fluxsr.cluster.run import Request, run

        request = Request(
            source=source,
            out=output,
            ending=f".{options.format}" if options.format else None,
            suffix=options.suffix,
            columns=(column, output_column),
            overwrite=overwrite,
            retry_failed=retry_failed,
            attempts=attempts,
            timeout=timeout,
            measure=measure,
        )
        all_done = run(request, model, options, Size(address, workers, gpus_per_worker, cpus_per_worker))
    raise typer.Exit(0 if all_done else 1)
