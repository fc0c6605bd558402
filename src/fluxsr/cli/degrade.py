"""``fluxsr degrade``: make low-resolution images from photographs, with the degradation used in training."""

from __future__ import annotations

from typing import Annotated

import typer

from fluxsr.cli.arguments import Debug, Inputs, Output, Overwrite, Suffix, planned
from fluxsr.cli.cli_errors import report_errors
from fluxsr.options import Format


def degrade(
    inputs: Inputs,
    output: Output,
    preset: Annotated[
        str, typer.Option(help="Degradation: realesrgan, stablesr, mild, bicubic, or a YAML file.")
    ] = "realesrgan",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    scale: Annotated[
        int | None, typer.Option(min=1, max=16, help="Reduction factor. Defaults to the preset's.")
    ] = None,
    format: Annotated[Format | None, typer.Option(help="Output format. Defaults to png.")] = None,
    suffix: Suffix = "",
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Degrade images.

    A result depends on the image, its file name and the seed, but not on other files.
    """
    work = planned(inputs, output, format, suffix, default="png")  # lossless: the preset decides on all losses
    with report_errors(debug):
        from dataclasses import replace

        from fluxsr.degradation import load_settings
        from fluxsr.processing.degrade_file import degraded, read_hr
        from fluxsr.processing.reporting import CommandLabels
        from fluxsr.processing.runner import Stages, run_jobs

        settings = load_settings(preset)
        if scale is not None:
            settings = replace(settings, scale=scale)
        report = run_jobs(
            work,
            lambda _console: Stages(read_hr, lambda job, hr, _progress: degraded(job, hr, settings, seed)),
            CommandLabels("degrade", "degraded"),
            settings={"seed": seed, "degradation": settings},
            overwrite=overwrite,
            debug=debug,
        )
    raise typer.Exit(1 if report.bad else 0)
