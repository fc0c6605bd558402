"""Upscale a plan: the pipeline is loaded once, then ``runner`` takes file after file."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from rich.console import Console

from fluxsr.apps.jobs import Job, Plan
from fluxsr.apps.runner import Report, Share, Step, Words, run_jobs
from fluxsr.imaging import io
from fluxsr.pipeline import FluxSRPipeline

WORDS = Words("upscale", "upscaled", memory="free some, or try --memory 8gb")


@dataclass(frozen=True)
class Options:
    """What to upscale with; the meanings are those of ``FluxSRPipeline``."""

    model: str = "bundled"
    config: str | None = None
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"
    scale: float = 4
    strength: float | None = None
    tile_size: int | None = None
    tile_overlap: int = 32
    color_fix: str = "wavelet"
    seed: int = 0


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
    if not debug:  # their advice is for programmers, and loading.py checks what it loads
        logging.getLogger("diffusers").setLevel(logging.ERROR)

    def start(console: Console) -> Step:
        pipeline = FluxSRPipeline.from_pretrained(
            options.model,
            adapter=options.adapter,
            device=options.device,
            dtype=options.dtype,
            memory=options.memory,
            config_folder=options.config,
        )
        console.print(f"model: {describe(pipeline)}")
        console.print(f"plan: {pipeline.plan.line()}")
        return lambda job, share: upscale(pipeline, job, options, share)

    return run_jobs(work, start, WORDS, overwrite=overwrite, debug=debug)


def upscale(pipeline: FluxSRPipeline, job: Job, options: Options, share: Share) -> None:
    """One file: read, enlarge, write."""
    io.check_writable(job.target)  # not after a minute of work
    picture = io.read(job.source)
    image = pipeline(
        picture.image,
        scale=options.scale,
        strength=options.strength,
        tile_size=options.tile_size,
        tile_overlap=options.tile_overlap,
        color_fix=options.color_fix,
        generator=torch.Generator().manual_seed(options.seed),
        progress=lambda done, total: share(done / total),
    ).images[0]
    io.write(image, job.target)


def describe(pipeline: FluxSRPipeline) -> str:
    """The model in one line: name, size, device, number format."""
    parameters = sum(p.numel() for p in pipeline.transformer.parameters())
    parameters += sum(p.numel() for p in pipeline.vae.parameters())
    dtype = str(pipeline.transformer.dtype).removeprefix("torch.")
    return f"{pipeline.name}, {parameters / 1e6:.1f} M parameters, {pipeline.device}, {dtype}"
