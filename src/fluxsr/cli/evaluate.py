"""``fluxsr evaluate``: tables of scores for folders, or for a model on a benchmark."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from fluxsr.cli.arguments import Debug, expand_dataclass_options
from fluxsr.cli.cli_errors import report_errors
from fluxsr.options import ModelOptions, PixelOptions

Kind = Literal["terminal", "markdown", "latex", "csv", "json"]
KINDS: dict[str, Kind] = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json"}


@expand_dataclass_options
def evaluate(
    *,
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SR HR | METHOD...",
            help="Image folders. Files are matched by stem. With --benchmark, --hr or --no-hr, each is a method.",
        ),
    ] = None,
    hr: Annotated[Path | None, typer.Option(help="Ground-truth folder. Every other folder is a method.")] = None,
    no_hr: Annotated[bool, typer.Option("--no-hr", help="There is no ground truth. Every folder is a method.")] = False,
    model: Annotated[str | None, typer.Option(help="Model to evaluate on --benchmark, as for fluxsr upscale.")] = None,
    benchmark: Annotated[
        Path | None, typer.Option(help="Folder of low-resolution images, or with subfolders LR and HR.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol of --benchmark, such as drealsr-crops. Defaults to the one recognised.")
    ] = None,
    degrade: Annotated[
        str, typer.Option(help="Degradation preset for benchmarks without low-resolution images (div2k-val).")
    ] = "realesrgan",
    metrics: Annotated[
        str | None,
        typer.Option(help="Comma-separated metrics, see --list. Defaults to the fast ones that need no download."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List metrics and protocols, then exit.")] = False,
    published: Annotated[
        bool,
        typer.Option("--published", help="Print what others published under each protocol as Markdown, then exit."),
    ] = False,
    crop: Annotated[
        int, typer.Option(min=0, help="Border in pixels that metrics against ground truth ignore. No protocol has one.")
    ] = 0,
    niqe_params: Annotated[Path | None, typer.Option(help="NIQE model of pristine photographs, .npz or .mat.")] = None,
    lpips_weights: Annotated[
        Path | None, typer.Option(help="LPIPS weights, .safetensors: SqueezeNet 1.1 and the linear layers.")
    ] = None,
    ci: Annotated[bool, typer.Option("--ci", help="Show 95 % confidence intervals of the means.")] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the bootstrap, --degrade and --blind.")] = 0,
    format: Annotated[
        Kind | None, typer.Option(help="Format of the tables. Defaults to that of the -o file, or to terminal.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the tables to this file instead of printing them.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the model's images in this folder. Images from earlier runs are reused.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with tables, spectra, crops and a comparison slider.")
    ] = None,
    blind: Annotated[
        Path | None,
        typer.Option(
            help="Write pairs of crops of two methods with hidden sides, and a page to judge them, to a new folder."
        ),
    ] = None,
    choices: Annotated[
        list[Path] | None,
        typer.Option(help="JSON file with one judge's choices. Prints the result of --blind. Repeat for more judges."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of processes. Defaults to what cores, memory and the number of images call for."
        ),
    ] = None,
    loading: ModelOptions,
    pixels: PixelOptions,
    debug: Debug = False,
) -> None:
    """Score image folders, a model on a benchmark, or both. Two methods are also compared image by image."""
    if list_:
        _list()
        return
    if published:
        from fluxsr.evaluation.published import page

        typer.echo(page(), nl=False)
        return
    if choices:
        if not blind:
            raise typer.BadParameter("name the folder of the comparison with --blind", param_hint="--choices")
        with report_errors(debug):
            from fluxsr.evaluation.blind import preference

            typer.echo(preference(blind, *choices).line())
        return
    folders = folders or []
    if not (folders or benchmark) or (model and not benchmark):
        raise typer.BadParameter(
            "give folders (SR HR, or METHOD... --hr HR), or --benchmark with --model, folders or both"
        )
    if protocol and not benchmark:
        raise typer.BadParameter("it goes with --benchmark", param_hint="--protocol")
    if sum(map(bool, (hr, no_hr, benchmark))) > 1:
        raise typer.BadParameter("--hr, --no-hr and --benchmark contradict each other; give one")
    if blind and (metrics or output or report):
        raise typer.BadParameter("it computes no metric; leave out --metrics, -o and --report", param_hint="--blind")
    kind = format or (KINDS.get(output.suffix.lower()) if output else "terminal")
    if kind is None or (output and kind == "terminal"):
        endings = ", ".join(KINDS)
        raise typer.BadParameter(
            f"'{output}' does not tell the format; end it in {endings} or give --format", param_hint="-o"
        )
    with report_errors(debug), nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="fluxsr-") as scratch:
        from fluxsr.backbones.device import best_device
        from fluxsr.cli import report_format
        from fluxsr.evaluation import score_folders
        from fluxsr.evaluation.blind import check_unused, write_pairs
        from fluxsr.imaging.atomic import check_writable, write_text
        from fluxsr.processing import scoring

        for path in (output, report):
            if path:
                check_writable(path)
        if blind:
            check_unused(blind)
        mine = loading.model_copy(update={"model": model}) if model else None
        if benchmark:
            from fluxsr.evaluation.protocols import open_benchmark
            from fluxsr.processing import benchmarking

            found = open_benchmark(benchmark, protocol)
            typer.echo(found.line(), err=True)
            methods, lr = benchmarking.make_images(found, mine, pixels, Path(scratch), degrade, seed, folders)
            truth = found.protocol
        else:
            methods, lr, truth = scoring.methods_of(folders, hr, no_hr or bool(blind)), {}, None
        if blind:
            both = sorted(methods, key=lambda method: method.name == "bicubic")
            pair = {method.name: method.folder for method in both if not method.truth}
            typer.echo(f"judge the pairs in {write_pairs(pair, blind, seed=seed)}", err=True)
            return
        score = partial(
            score_folders,
            crop=crop,
            niqe_params=niqe_params,
            lpips_weights=lpips_weights,
            workers=workers,
            device=str(best_device(loading.device)),
        )
        reports = scoring.scores(methods, metrics.split(",") if metrics is not None else None, score)
        text = report_format.text_of(reports, kind, truth, ci=ci, seed=seed)
        if output:
            write_text(text, output)
        else:
            typer.echo(text, nl=False)
        if report:
            from fluxsr.cli import report_page

            similarity = report_page.similarity_of(mine, list(lr.values())) if mine else {}
            tables = report_format.tables(reports, truth, ci=ci, seed=seed)
            stems, where = list(reports[0].per_image), truth.title if truth else ""
            write_text(report_page.html(methods, stems, tables, lr, similarity, where), report)


def _list() -> None:
    from fluxsr.evaluation.catalogue import DEFAULT, METRICS
    from fluxsr.evaluation.protocols import PROTOCOLS

    typer.echo("metrics (* is computed by default):")
    for name, metric in METRICS.items():
        sign = "*" if name in DEFAULT else " "
        typer.echo(f" {sign} {name:13}{metric.arrow:3} {metric.protocol} ({metric.origin})")
    typer.echo("protocols:")
    for protocol in PROTOCOLS.values():
        truth = "with ground truth" if protocol.paired else "no ground truth"
        typer.echo(f"   {protocol.name:14} {protocol.count:4} images, {truth}: {protocol.title}")
