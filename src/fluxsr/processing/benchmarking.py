"""A model's images of a benchmark for ``fluxsr evaluate``, and bicubic's beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import typer
from PIL import Image

from fluxsr.degradation import load_settings
from fluxsr.errors import FluxSRError, InputError
from fluxsr.evaluation.protocols import SCALE, Benchmark, open_benchmark
from fluxsr.imaging import io
from fluxsr.names import printable
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing import upscale_file
from fluxsr.processing.degrade_file import degraded, read_hr
from fluxsr.processing.inputs import Job, Plan
from fluxsr.processing.reporting import CommandLabels
from fluxsr.processing.runner import ProgressCallback, Stages, Write, run_jobs
from fluxsr.processing.scoring import Method


def opened(folder: Path, protocol: str | None) -> Benchmark:
    """The benchmark, with a line on stderr that says what it is."""
    found = open_benchmark(folder, protocol)
    typer.echo(found.line(), err=True)
    return found


def model_options(model: str, config: str | None, adapter: str | None, device: str) -> ModelOptions:
    """Return the options of the model that is evaluated."""
    return ModelOptions(model=model, config=config, adapter=adapter, device=device)


def made(
    found: Benchmark, options: ModelOptions, folder: Path, preset: str, seed: int
) -> tuple[list[Method], dict[str, Path]]:
    """Make bicubic's and the model's images of a benchmark, in a folder; those that are up to date there are kept.

    Returns:
        The methods, ground truth last where there is one, and the LR images by stem.

    Raises:
        FluxSRError: an image could not be made; the reasons stand on stderr.
    """
    low = _low(found, folder, preset, seed)
    truth = _truth(found, folder) if found.paired else None

    def bicubic(image: Image.Image) -> Image.Image:
        return image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.BICUBIC)

    name = Path(options.model).name
    plan, labels = _plan(low, folder / "bicubic"), CommandLabels("enlarge", "enlarged")
    _complete(run_jobs(plan, lambda _: _stages(bicubic), labels, settings={"bicubic": SCALE}).bad)
    _complete(upscale_file.run(_plan(low, folder / name), options, UpscaleOptions(scale=SCALE)).bad)
    methods = [Method("bicubic", folder / "bicubic", truth), Method(printable(name), folder / name, truth)]
    return ([*methods, Method("HR", truth, None, truth=True)] if truth else methods), low


def _low(found: Benchmark, folder: Path, preset: str, seed: int) -> dict[str, Path]:
    """Stem -> low-resolution image, made where the benchmark has none."""
    if all(picture.lr for picture in found.pictures):
        return {picture.stem: picture.lr for picture in found.pictures if picture.lr}
    settings = load_settings(preset)
    if settings.scale != SCALE:
        raise InputError(f"{preset} reduces by {settings.scale}; the benchmark needs {SCALE}")
    typer.echo(f"LR images made by {preset}, seed {seed}: not those of any paper", err=True)
    plan = _plan({picture.stem: picture.hr for picture in found.pictures if picture.hr}, folder / "LR")
    stages = Stages(read_hr, lambda job, hr, _progress: degraded(job, hr, settings, seed))
    given = {"seed": seed, "degradation": settings}
    _complete(run_jobs(plan, lambda _: stages, CommandLabels("degrade", "degraded"), settings=given).bad)
    return {job.target.stem: job.target for job in plan.jobs}


def _truth(found: Benchmark, folder: Path) -> Path:
    """The folder of ground truth by the stems of the pictures, whole pixels of LR only."""
    if all(picture.hr and picture.lr and picture.hr.stem == picture.stem for picture in found.pictures):
        parents = {picture.hr.parent for picture in found.pictures if picture.hr}
        if len(parents) == 1:
            return parents.pop()
    plan = _plan({picture.stem: picture.hr for picture in found.pictures if picture.hr}, folder / "HR")

    def cut(image: Image.Image) -> Image.Image:
        width, height = (side - side % SCALE for side in image.size)
        return image.crop((0, 0, width, height))

    _complete(run_jobs(plan, lambda _: _stages(cut), CommandLabels("copy", "copied"), settings={"multiple": SCALE}).bad)
    return folder / "HR"


def _stages(make: Callable[[Image.Image], Image.Image]) -> Stages[Image.Image]:
    """Read, ``make`` one image of another, write."""

    def work(job: Job, image: Image.Image, _progress: ProgressCallback) -> Write:
        result = make(image)

        def write() -> tuple[()]:
            io.write(result, job.target)
            return ()

        return write

    return Stages(read_hr, work)


def _plan(inputs: dict[str, Path], folder: Path) -> Plan:
    """Return a plan that makes {stem}.png of each input, and keeps a record of it."""
    return Plan([Job(path, folder / f"{stem}.png") for stem, path in inputs.items()], record=folder)


def _complete(bad: Sequence[str]) -> None:
    if bad:
        raise FluxSRError(f"{len(bad)} images could not be made, so nothing was scored; a part would be no benchmark")
