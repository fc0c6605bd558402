"""``fluxsr batch``. Light to import."""

from __future__ import annotations

from typing import Annotated

import typer

from fluxsr.cli.arguments import Debug, Mask, Overwrite, expand_dataclass_options
from fluxsr.cli.cli_errors import report_errors
from fluxsr.cluster.settings import BatchOptions, Size
from fluxsr.errors import needed
from fluxsr.options import ModelOptions, UpscaleOptions


@expand_dataclass_options
def batch(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Folder, manifest (.csv, .parquet) or shards ('in/*.tar'); a path or s3:// URL."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Output folder, or a prefix such as s3://bucket/out.")],
    size: Size,
    batch: BatchOptions,
    model: ModelOptions,
    options: UpscaleOptions,
    mask: Mask = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Upscale an archive with several workers on this machine or on a Ray cluster.

    Run the same command again to resume.
    """
    with report_errors(debug):
        needed("fluxsr batch", "ray", "ray", "pyarrow", "fsspec")  # before torch is loaded, which takes seconds
        from fluxsr.cluster.run import run

        all_done = run(source, output, model, options, batch, size, mask=mask, overwrite=overwrite)
    raise typer.Exit(0 if all_done else 1)
