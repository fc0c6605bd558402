"""Run a plan: load the pipeline once, upscale file after file; no bad file stops the others."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fluxsr.apps.jobs import Job, Plan
from fluxsr.errors import FluxSRError
from fluxsr.imaging import io
from fluxsr.pipeline import FluxSRPipeline


@dataclass(frozen=True)
class Options:
    """What to upscale with; the meanings are those of ``FluxSRPipeline``."""

    model: str = "bundled"
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    scale: float = 4
    strength: float | None = None
    tile_size: int | None = None
    tile_overlap: int = 64
    color_fix: str = "wavelet"
    seed: int = 0


@dataclass
class Report:
    """What became of a plan: outputs written, outputs that were there, inputs that failed."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def run(work: Plan, options: Options, *, overwrite: bool = False, debug: bool = False) -> Report:
    """Upscale all of a plan; every failure is one line on stderr.

    Args:
        work: of ``jobs.plan``.
        options: of the pipeline.
        overwrite: redo outputs that exist.
        debug: raise the first error instead of reporting it.

    Raises:
        ModelError: the model cannot be loaded.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    report = Report()
    if not debug:  # their advice is for programmers, and loading.py checks what it loads
        logging.getLogger("diffusers").setLevel(logging.ERROR)
    for note in work.notes:
        console.print(f"note: {note}")
    for name, reason in work.bad:
        console.print(f"error: {name}: {reason}")
        report.bad.append(name)
    todo: list[Job] = []
    for job in work.jobs:
        if job.target.exists() and not overwrite:
            report.skipped.append(job.target)
        else:
            todo.append(job)
    if todo:
        pipeline = FluxSRPipeline.from_pretrained(
            options.model, adapter=options.adapter, device=options.device, dtype=options.dtype
        )
        console.print(f"model: {describe(pipeline)}")
        with _progress(console) as progress:
            bar = progress.add_task("upscale", total=len(todo), count=f"0/{len(todo)}")
            for number, job in enumerate(todo):
                progress.update(bar, description=job.source.name)
                try:
                    upscale(pipeline, job, options, progress, bar)
                    report.done.append(job.target)
                except Exception as error:
                    if debug:
                        raise
                    console.print(f"error: {reason_of(error, job.source)}")
                    report.bad.append(str(job.source))
                finished = number + 1
                progress.update(bar, completed=finished, count=f"{finished}/{len(todo)}")
    _summary(console, report)
    return report


def upscale(pipeline: FluxSRPipeline, job: Job, options: Options, progress: Progress, bar: TaskID) -> None:
    """One file: read, enlarge, write."""
    io.check_writable(job.target)  # not after a minute of work
    picture = io.read(job.source)
    before = progress.tasks[bar].completed

    def tile_done(done: int, total: int) -> None:
        progress.update(bar, completed=before + done / total)

    image = pipeline(
        picture.image,
        scale=options.scale,
        strength=options.strength,
        tile_size=options.tile_size,
        tile_overlap=options.tile_overlap,
        color_fix=options.color_fix,
        generator=torch.Generator().manual_seed(options.seed),
        progress=tile_done,
    ).images[0]
    io.write(image, job.target)


def describe(pipeline: FluxSRPipeline) -> str:
    """The model in one line: name, size, device, number format."""
    parameters = sum(p.numel() for p in pipeline.transformer.parameters())
    parameters += sum(p.numel() for p in pipeline.vae.parameters())
    dtype = str(pipeline.transformer.dtype).removeprefix("torch.")
    return f"{pipeline.name}, {parameters / 1e6:.1f} M parameters, {pipeline.device}, {dtype}"


def reason_of(error: Exception, source: Path) -> str:
    """An error in one line that names the file."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    if not isinstance(error, FluxSRError):
        if isinstance(error, MemoryError) or "memory" in text:
            text = f"out of memory; try a smaller --tile-size ({text})"
        else:
            text = f"unexpected {type(error).__name__}: {text} (--debug shows where)"
    return text if text.startswith(str(source)) else f"{source}: {text}"


def _summary(console: Console, report: Report) -> None:
    parts = [f"{len(report.done)} upscaled"]
    if report.skipped:
        parts.append(f"{len(report.skipped)} finished before (--overwrite redoes them)")
    if report.bad:
        parts.append(f"{len(report.bad)} failed")
    console.print(", ".join(parts))
    for name in report.bad:
        console.print(f"failed: {name}")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.fields[count]}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
