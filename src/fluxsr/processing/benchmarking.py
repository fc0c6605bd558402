"""Make the images of a benchmark for ``fluxsr evaluate``: a model's, and bicubic interpolation's beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer
from PIL import Image

from fluxsr.backbones.device import best_device, peak_memory
from fluxsr.degradation import load_settings
from fluxsr.errors import FluxSRError, InputError
from fluxsr.evaluation.folders import check_stems, image_size, list_images
from fluxsr.evaluation.protocols import SCALE, Benchmark
from fluxsr.imaging import io
from fluxsr.names import printable
from fluxsr.options import ModelOptions, PixelOptions, UpscaleOptions
from fluxsr.processing import upscale_file
from fluxsr.processing.degrade_file import degraded, read_hr
from fluxsr.processing.inputs import Job, Plan
from fluxsr.processing.reporting import CommandLabels, Report
from fluxsr.processing.runner import Stages, Write, run_jobs
from fluxsr.processing.scoring import Method, methods_of


def make_images(
    found: Benchmark,
    model: ModelOptions | None,
    pixels: PixelOptions,
    folder: Path,
    preset: str,
    seed: int,
    others: Sequence[Path] = (),
) -> tuple[list[Method], dict[str, Path]]:
    """Make bicubic's and the model's images of a benchmark in a folder, except those that are up to date.

    Args:
        found: the benchmark.
        model, pixels: the model and its options; None makes bicubic's images alone.
        folder: folder to write to.
        preset, seed: degradation of a benchmark without low-resolution images.
        others: folders of further methods' images, with the file stems of the benchmark.

    Returns:
        The methods, with the ground truth last if there is one, and the LR images by stem.

    Raises:
        InputError: a folder lacks images.
        FluxSRError: an image could not be made; the reasons are printed on stderr.
    """
    for other in others:
        check_stems([picture.stem for picture in found.pictures], list_images(other), other)
    low = _low_resolution(found, folder, preset, seed)
    truth = _ground_truth(found, folder) if found.paired else None

    def bicubic(image: Image.Image) -> Image.Image:
        return image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.BICUBIC)

    _make(low, folder / "bicubic", bicubic, CommandLabels("enlarge", "enlarged"), {"bicubic": SCALE})
    methods = [Method("bicubic", folder / "bicubic", truth)]
    if model:
        name = " + ".join(Path(one).name for one in (model.model, model.adapter) if one)
        report = upscale_file.run(_plan(low, folder / name), model, UpscaleOptions(scale=SCALE, **pixels.model_dump()))
        _check(report)
        methods.append(Method(printable(name), folder / name, truth, cost=_cost(report, model.device)))
    methods += methods_of(others, truth, True, [*(method.name for method in methods), "HR"])
    return ([*methods, Method("HR", truth, None, truth=True)] if truth else methods), low


def _cost(report: Report, device: str) -> dict[str, float]:
    """Return the cost columns of a run; none if all images are from an earlier one."""
    megapixels = sum(width * height for width, height in map(image_size, report.done)) / 1e6
    if not megapixels:
        return {}
    memory = peak_memory(best_device(device))
    return {"seconds": report.seconds / megapixels, **({"memory": memory / 1e9} if memory else {})}


def _low_resolution(found: Benchmark, folder: Path, preset: str, seed: int) -> dict[str, Path]:
    """Return the low-resolution images by stem. They are made if the benchmark has none."""
    if all(picture.lr for picture in found.pictures):
        return {picture.stem: picture.lr for picture in found.pictures if picture.lr}
    settings = load_settings(preset)
    if settings.scale != SCALE:
        raise InputError(f"{preset} reduces by {settings.scale}; the benchmark needs {SCALE}")
    typer.echo(f"LR images made by {preset}, seed {seed}: not those of any paper", err=True)
    plan = _plan(_high_resolution(found), folder / "LR")
    stages = Stages(read_hr, lambda job, hr, _progress: degraded(job, hr, settings, seed))
    used = {"seed": seed, "degradation": settings}
    _check(run_jobs(plan, lambda _: stages, CommandLabels("degrade", "degraded"), settings=used))
    return {job.target.stem: job.target for job in plan.jobs}


def _ground_truth(found: Benchmark, folder: Path) -> Path:
    """Return a folder of ground truth with the stems of the pictures, cropped to multiples of the scale."""
    if all(picture.hr and picture.lr and picture.hr.stem == picture.stem for picture in found.pictures):
        parents = {path.parent for path in _high_resolution(found).values()}
        if len(parents) == 1:
            return parents.pop()

    def crop(image: Image.Image) -> Image.Image:
        width, height = (side - side % SCALE for side in image.size)
        return image.crop((0, 0, width, height))

    _make(_high_resolution(found), folder / "HR", crop, CommandLabels("copy", "copied"), {"multiple": SCALE})
    return folder / "HR"


def _high_resolution(found: Benchmark) -> dict[str, Path]:
    return {picture.stem: picture.hr for picture in found.pictures if picture.hr}


def _make(
    inputs: dict[str, Path],
    folder: Path,
    make: Callable[[Image.Image], Image.Image],
    labels: CommandLabels,
    settings: dict[str, Any],
) -> None:
    """Write ``make`` of each input as {stem}.png."""

    def work(job: Job, image: Image.Image, _progress: Any) -> Write:
        return partial(io.write, make(image), job.target)

    _check(run_jobs(_plan(inputs, folder), lambda _: Stages(read_hr, work), labels, settings=settings))


def _plan(inputs: dict[str, Path], folder: Path) -> Plan:
    return Plan([Job(path, folder / f"{stem}.png", record=folder) for stem, path in inputs.items()])


def _check(report: Report) -> None:
    if report.bad:
        count = len(report.bad)
        raise FluxSRError(f"{count} images could not be made, so nothing was scored; a part would be no benchmark")
