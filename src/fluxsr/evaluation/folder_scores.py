"""Scores of a folder of images, against ground truth with the same file stems if there is any."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from fluxsr.errors import FluxSRError, InputError
from fluxsr.evaluation.catalogue import METRICS, NETWORKS, Metric, select_metrics
from fluxsr.evaluation.folders import check_stems, image_size, list_images
from fluxsr.evaluation.image_scores import Scored, Settings, Task, installed, scorer
from fluxsr.evaluation.niqe import read_model
from fluxsr.evaluation.spectra import peak16
from fluxsr.losses.lpips import cached_lpips, load_lpips
from fluxsr.names import printable

log = logging.getLogger(__name__)

_PROCESS = 900_000_000  # bytes of a process with PyTorch and the metrics' packages
_PIXEL = 600  # peak bytes of the metrics for each pixel of an image
_FEW = 8  # images that take about as long to score as a process takes to start
_FREE_SHARE = 0.8  # share of the free memory to use
_CGROUP = Path("/sys/fs/cgroup")
_FILES = {
    "niqe": "name its pristine model with --niqe-params (fluxsr fit-niqe makes one)",
    "lpips": "name its weights with --lpips-weights (docs/evaluation.md says which)",
}


@dataclass(frozen=True)
class Report:
    """Scores of one folder.

    Attributes:
        name: name of the row.
        crop: border in pixels that metrics against ground truth leave out.
        mean: mean over images by column (peak16: of the whole set).
        per_image: values by file stem and column. An image without a value for a column lacks it.
    """

    name: str
    crop: int
    mean: dict[str, float]
    per_image: dict[str, dict[str, float]] = field(repr=False)


def score_folders(
    sr: Path,
    hr: Path | None = None,
    *,
    name: str | None = None,
    only: Sequence[str] | None = None,
    crop: int = 0,
    niqe_params: Path | None = None,
    lpips_weights: Path | None = None,
    metrics: Sequence[str] | None = None,
    workers: int | None = 1,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score the images of a folder.

    Columns whose package or weights are missing are left out with a warning. An image that is too small for a column,
    or has nothing to measure, does not count in its mean.
    Memory grows with the image and the number of workers, not with the number of images.

    Args:
        sr: folder of super-resolved images.
        hr: folder of ground truth; None leaves only the metrics without ground truth.
        name: name of the row; the folder's name by default.
        only: file stems to score; all by default.
        crop: border in pixels that metrics against ground truth leave out. LPIPS, ColorVideoVDP and legibility
            use whole images.
        niqe_params: NIQE's pristine model (see `niqe.read_model`).
        lpips_weights: weights of LPIPS (see `losses.lpips.load_lpips`); None uses those of torchvision and the
            package lpips if both are on the disk.
        metrics: names of metrics; None selects those that download nothing and take little time.
        workers: processes for all but networks with downloaded weights, which run in this one; None uses as many as
            cores, memory and images call for. More than 1 needs a main module that can be imported
            (`if __name__ == "__main__"`).
        device: device of those networks.
        progress: called with the number of images done and in all.

    Raises:
        InputError: missing images, sizes that differ, images that cannot be read, an unknown metric, or no metric that
            can be computed.
        FluxSRError: a worker was killed.
    """
    sr_paths = list_images(sr)
    hr_paths = list_images(hr) if hr is not None else None
    stems = list(only) if only is not None else list(sr_paths)
    check_stems(stems, sr_paths, Path(sr))
    if hr_paths is not None:
        check_stems(stems, hr_paths, Path(str(hr)))
    tasks = [Task(stem, sr_paths[stem], hr_paths[stem] if hr_paths else None) for stem in stems]

    pristine = read_model(niqe_params) if niqe_params is not None else None
    lpips = load_lpips(lpips_weights) if lpips_weights is not None else cached_lpips()
    settings = Settings(crop, pristine, lpips, device)
    without = [name for name, found in (("niqe", pristine), ("lpips", lpips)) if found is None]
    kept = usable(select_metrics(metrics), with_hr=hr is not None, without=without)
    sizes = {stem: image_size(sr_paths[stem]) for stem in stems}
    kept = fitting(kept, sizes, crop)
    if workers is None:
        workers = min(workers_for(max(width * height for width, height in sizes.values())), 1 + len(tasks) // _FEW)
    light = [metric.name for metric in kept if metric.source not in NETWORKS]
    learned = [metric.name for metric in kept if metric.source in NETWORKS]
    passes = [(names, count) for names, count in ((light, workers), (learned, 1)) if names]
    rows: dict[str, dict[str, float]] = {stem: {} for stem in stems}
    excesses: list[Tensor] = []
    for number, (names, count) in enumerate(passes):
        for index, scored in enumerate(_scored(tasks, names, min(count, len(tasks)), settings)):
            rows[stems[index]] |= scored.row
            excesses += [] if scored.excess is None else [scored.excess]
            if progress:
                progress(number * len(stems) + index + 1, len(passes) * len(stems))
    return _report(name or printable(Path(sr).name), crop, rows, excesses if "peak16" in light else [])


def usable(metrics: Sequence[Metric], *, with_hr: bool, without: Sequence[str]) -> list[Metric]:
    """Return the metrics that can be computed; log those whose file or package is missing.

    Args:
        metrics: the selected metrics.
        with_hr: whether there is ground truth.
        without: names of the metrics whose file is missing.

    Raises:
        InputError: no metric is left.
    """
    kept = [metric for metric in metrics if with_hr or not metric.needs_hr]
    for metric in kept:
        if metric.name in without:
            log.warning("column %s left out: %s", metric.name, _FILES[metric.name])
    kept = installed([metric for metric in kept if metric.name not in without])
    if not kept:
        names = ", ".join(metric.name for metric in metrics)
        raise InputError(f"nothing can be measured of {names}" + ("" if with_hr else " without ground truth"))
    return kept


def fitting(metrics: Sequence[Metric], sizes: Mapping[str, tuple[int, int]], crop: int) -> list[Metric]:
    """Return the metrics for which some image is large enough; log those that leave images out.

    Args:
        metrics: the metrics to check.
        sizes: (width, height) of the images by file stem.
        crop: border in pixels.

    Raises:
        InputError: no metric is left.
    """
    kept, short = [], dict[tuple[int, str, str], list[str]]()
    for metric in metrics:
        small = [stem for stem, size in sizes.items() if not metric.fits(*size, crop)]
        if len(small) < len(sizes):
            kept.append(metric)
        if small:
            squares = (
                f"{metric.squares} squares of {metric.smallest}"
                if metric.squares > 1
                else f"sides of {metric.smallest}"
            )
            need = f"{squares} pixels" + (f" after cropping {crop}" if metric.cropped else "")
            short.setdefault((len(sizes) - len(small), need, small[0]), []).append(metric.name)
    for (count, need, stem), names in short.items():
        what = f"are of {count} of {len(sizes)} images" if count else "left out"
        size = "x".join(map(str, sizes[stem]))
        log.warning("columns %s %s: they need %s, and %s is %s", ", ".join(names), what, need, stem, size)
    if not kept:
        raise InputError("no column could be computed; see the lines above")
    return kept


def _scored(tasks: Sequence[Task], names: list[str], workers: int, settings: Settings) -> Iterator[Scored]:
    if workers <= 1:
        yield from map(scorer(names, settings), tasks)
        return
    context = multiprocessing.get_context("spawn")  # forking a process with PyTorch's threads may hang
    try:
        with ProcessPoolExecutor(workers, context, _start_worker, (names, settings)) as pool:
            yield from pool.map(_work, tasks)
    except BrokenProcessPool as error:
        raise FluxSRError("a worker was ended from outside, perhaps for want of memory; try --workers 1") from error


_worker: list[Callable[[Task], Scored]] = []  # the scorer of a spawned process


def _start_worker(names: list[str], settings: Settings) -> None:
    torch.set_num_threads(1)  # the processes already use all cores
    _worker.append(scorer(names, settings))


def _work(task: Task) -> Scored:
    return _worker[0](task)


def _report(name: str, crop: int, rows: dict[str, dict[str, float]], excesses: Sequence[Tensor]) -> Report:
    computed = [key for key in METRICS if any(key in row for row in rows.values())]
    per_image = {
        stem: {key: row[key] for key in computed if key in row and not math.isnan(row[key])}
        for stem, row in rows.items()
    }
    values = {key: [row[key] for row in per_image.values() if key in row] for key in computed}
    for key in (key for key in computed if not values[key]):
        log.warning("column %s left out: no image has what it measures", key)
    mean = {key: float(np.mean(found)) for key, found in values.items() if found}
    if excesses:
        mean["peak16"] = peak16(torch.cat(list(excesses)))
    if not mean:
        raise InputError("no column could be computed; see the lines above")
    return Report(name, crop, {key: mean[key] for key in METRICS if key in mean}, per_image)


def workers_for(pixels: int) -> int:
    """Return the number of processes that cores and memory allow for images of up to ``pixels``, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(_FREE_SHARE * free_memory() / (_PROCESS + _PIXEL * pixels))))


def free_memory() -> int:
    """Return the number of bytes that this process may still allocate within its container."""
    free = int(psutil.virtual_memory().available)
    v1 = Path("memory")
    for limit, used in (
        ("memory.max", "memory.current"),
        (v1 / "memory.limit_in_bytes", v1 / "memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text()))
        except (OSError, ValueError):  # no such file, or "max" for no limit
            continue
    return max(0, free)
