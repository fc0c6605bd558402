"""``fluxsr evaluate``: scores of folders, or of a model on a benchmark, as tables."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fluxsr.cli.arguments import Adapter, Config, Debug, Device
from fluxsr.cli.cli_errors import report_errors


class Kind(str, Enum):
    terminal = "terminal"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


KINDS = {".md": Kind.markdown, ".tex": Kind.latex, ".csv": Kind.csv, ".json": Kind.json}
Folders = Annotated[
    list[Path] | None, typer.Argument(metavar="SR HR | METHOD...", help="Folders; files are matched by stem.")
]


def evaluate(
    folders: Folders = None,
    hr: Annotated[Path | None, typer.Option(help="Ground truth of all the folders, each of which is a method.")] = None,
    no_hr: Annotated[bool, typer.Option("--no-hr", help="All folders are methods; there is no ground truth.")] = False,
    model: Annotated[str | None, typer.Option(help="With --benchmark: as of fluxsr upscale.")] = None,
    benchmark: Annotated[Path | None, typer.Option(help="Folder of low-resolution images, or of LR and HR.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="What --benchmark must be, such as drealsr-crops; else found out.")
    ] = None,
    degrade: Annotated[str, typer.Option(help="Preset that makes the LR images of div2k-val.")] = "realesrgan",
    metrics: Annotated[
        str | None, typer.Option(help="Names with commas, see --list; else all that download nothing.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List metrics and protocols.")] = False,
    crop: Annotated[int, typer.Option(min=0, help="Border left out against HR, pixels; papers take 0.")] = 4,
    niqe_params: Annotated[Path | None, typer.Option(help="NIQE's pristine model, .npz or .mat.")] = None,
    lpips_weights: Annotated[
        Path | None, typer.Option(help="LPIPS's weights: SqueezeNet 1.1 and the linear heads, .safetensors.")
    ] = None,
    ci: Annotated[bool, typer.Option("--ci", help="95 % intervals of the means.")] = False,
    seed: Annotated[int, typer.Option(help="Of the bootstrap, and of --degrade.")] = 0,
    format: Annotated[Kind | None, typer.Option(help="Else by the ending of -o, or for the terminal.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the tables; else printed.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep the model's images here; finished ones are taken.")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML page of tables, spectra, crops and a slider.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; else as cores and memory allow.")] = None,
    config: Config = None,
    adapter: Adapter = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Score folders against ground truth, or a model on a benchmark; two methods are compared image by image."""
    if list_:
        _list()
        return
    folders = folders or []
    if bool(folders) == bool(model or benchmark) or bool(model) != bool(benchmark):
        raise typer.BadParameter("give folders (SR HR, or METHOD... --hr HR), or --model and --benchmark")
    if protocol and not benchmark:
        raise typer.BadParameter("it goes with --benchmark", param_hint="--protocol")
    if hr and no_hr:
        raise typer.BadParameter("--hr and --no-hr contradict each other", param_hint="--no-hr")
    kind = format or (KINDS.get(output.suffix.lower()) if output else Kind.terminal)
    if kind is None or (output and kind is Kind.terminal):
        raise typer.BadParameter(
            f"'{output}' does not tell; end it in {', '.join(KINDS)} or give --format", param_hint="-o"
        )
    with report_errors(debug), _folder(keep) as scratch:
        from fluxsr.cli import report_format
        from fluxsr.imaging.atomic import check_writable, write_text
        from fluxsr.processing import scoring

        for path in (output, report):
            if path:
                check_writable(path)
        setup = scoring.Setup(
            metrics=metrics.split(",") if metrics is not None else None,
            crop=crop,
            niqe_params=niqe_params,
            lpips_weights=lpips_weights,
            workers=workers,
            device=device,
        )
        if benchmark and model:
            from fluxsr.processing import benchmarking

            options = benchmarking.model_options(model, config, adapter, device)
            found = benchmarking.opened(benchmark, protocol)
            methods, lr = benchmarking.made(found, options, scratch, degrade, seed)
            truth = found.protocol
        else:
            methods, lr, truth = scoring.given(folders, hr, no_hr), {}, None
        reports = scoring.scored(methods, setup)
        text = report_format.shown(reports, kind.value, truth, ci=ci, seed=seed)
        if output:
            write_text(text, output)
        else:
            typer.echo(text, nl=False)
        if report:
            from fluxsr.cli import report_page

            similarity = report_page.similarity_of(model, config, adapter, device, list(lr.values())) if model else {}
            tables = report_format.tables(reports, truth, ci=ci, seed=seed)
            stems, where = list(reports[0].per_image), truth.title if truth else ""
            write_text(report_page.html(methods, stems, tables, lr, similarity, where), report)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="fluxsr-") as scratch:
        yield Path(scratch)


def _list() -> None:
    from fluxsr.evaluation.catalogue import DEFAULT, LICENCES, METRICS
    from fluxsr.evaluation.protocols import PROTOCOLS

    typer.echo("metrics (* downloads nothing, and is taken without --metrics):")
    for name, metric in METRICS.items():
        sign = "*" if name in DEFAULT else " "
        licence = f" ({LICENCES[metric.source]})" if metric.source in LICENCES else ""
        typer.echo(f" {sign} {name:13}{metric.arrow:3} {metric.source:9} {metric.protocol}{licence}")
    typer.echo("protocols:")
    for protocol in PROTOCOLS.values():
        truth = "with ground truth" if protocol.paired else "no ground truth"
        typer.echo(f"   {protocol.name:14} {protocol.count:4} images, {truth}: {protocol.title}")
