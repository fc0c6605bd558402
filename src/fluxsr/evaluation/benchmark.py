"""Two folders in, scores out: images against others of the same file stem. Knows no model."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fluxsr.errors import FluxSRError, InputError
from fluxsr.evaluation import extras
from fluxsr.evaluation.catalogue import METRICS, PYIQA, Metric, chosen
from fluxsr.evaluation.diagnostics import peak16
from fluxsr.evaluation.folders import check_stems, image_size, list_images
from fluxsr.evaluation.niqe import read_model
from fluxsr.evaluation.scorer import Scored, Settings, Task, scorer
from fluxsr.evaluation.workers import workers_for
from fluxsr.losses.lpips import cached_lpips, load_lpips
from fluxsr.names import printable

log = logging.getLogger(__name__)

Tell = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True)
class Report:
    """Scores of one folder."""

    name: str
    crop: int
    """Border left out of metrics against HR, pixels."""
    mean: dict[str, float]
    """Column -> mean over images (peak16: of the whole set)."""
    per_image: dict[str, dict[str, float]] = field(repr=False)
    """File stem -> column -> value."""


def score_folders(
    sr: Path,
    hr: Path | None = None,
    *,
    name: str | None = None,
    only: Sequence[str] | None = None,
    crop: int = 4,
    niqe_params: Path | None = None,
    lpips_weights: Path | None = None,
    metrics: Sequence[str] | None = None,
    workers: int | None = 1,
    device: str = "cpu",
    progress: Tell | None = None,
) -> Report:
    """Score the images of `sr`, against those of `hr` of the same stem where it is given.

    Memory grows with the image and the number of workers, not with the number of images.

    Args:
        sr: folder of super-resolved images. Columns that the smallest of them is too small for are left out, with a
            warning.
        hr: folder of ground truth; None leaves only the columns that need none.
        name: of the row; the folder's name by default.
        only: file stems to score; all by default.
        crop: border left out of metrics against HR, pixels. Many papers take 0. LPIPS and ColorVideoVDP take none.
        niqe_params: NIQE's pristine model (see `niqe.read_model`).
        lpips_weights: weights of LPIPS (see `losses.lpips.load_lpips`); None takes those of torchvision and the
            package lpips where both are on the disk.
        metrics: names of the catalogue; None takes those that download nothing. Columns whose package or
            weights are missing are left out, with a warning.
        workers: processes for all but learned metrics, which run in this one; None takes what fits cores and memory.
            More than 1 needs a main module that can be imported (`if __name__ == "__main__"`).
        device: of learned metrics.

    Raises:
        InputError: missing images, sizes that differ, images that cannot be read, a metric that is not known, or
            none that can be computed.
        FluxSRError: a worker was ended from outside.
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
    kept = usable(chosen(metrics), with_hr=hr is not None, without=without)
    sizes = {stem: image_size(sr_paths[stem]) for stem in stems}
    kept = fitting(kept, sizes, crop)
    if workers is None:
        workers = workers_for(max(width * height for width, height in sizes.values()))
    light = [metric.name for metric in kept if metric.source != PYIQA]
    learned = [metric.name for metric in kept if metric.source == PYIQA]
    passes = [_Pass(names, count) for names, count in ((light, workers), (learned, 1)) if names]
    rows: dict[str, dict[str, float]] = {stem: {} for stem in stems}
    excesses: list[Tensor] = []
    for number, one in enumerate(passes):
        for index, scored in enumerate(_scored(tasks, one, settings)):
            rows[stems[index]] |= scored.row
            if scored.excess is not None:
                excesses.append(scored.excess)
            if progress:
                progress(number * len(stems) + index + 1, len(passes) * len(stems))
    return _report(name or printable(Path(sr).name), crop, rows, excesses if "peak16" in light else [])


@dataclass(frozen=True)
class _Pass:
    """Metrics that are computed together, and by how many processes."""

    names: list[str]
    workers: int


_FILES = {
    "niqe": "name its pristine model with --niqe-params (fluxsr fit-niqe makes one)",
    "lpips": "name its weights with --lpips-weights (docs/evaluation.md says which)",
}


def usable(metrics: Sequence[Metric], *, with_hr: bool, without: Sequence[str]) -> list[Metric]:
    """Those that can be computed here; what is left out for want of a file or package is said in one line.

    Args:
        metrics: what was asked for.
        with_hr: whether there is ground truth.
        without: names of the metrics whose file was not given.

    Raises:
        InputError: none is left.
    """
    kept = [metric for metric in metrics if with_hr or not metric.needs_hr]
    for name in without:
        if any(metric.name == name for metric in kept):
            log.warning("column %s left out: %s", name, _FILES[name])
    kept = [metric for metric in kept if metric.name not in without]
    kept = extras.installed(kept)
    if not kept:
        asked = ", ".join(metric.name for metric in metrics)
        raise InputError(f"nothing can be measured of {asked}" + ("" if with_hr else " without ground truth"))
    return kept


def fitting(metrics: Sequence[Metric], sizes: Mapping[str, tuple[int, int]], crop: int) -> list[Metric]:
    """Those that can be computed of every image; what is left out is said in one line for each smallest size.

    Args:
        sizes: (width, height) of the images, by their stems.

    Raises:
        InputError: none is left.
    """
    left: dict[tuple[int, int, bool], list[str]] = {}
    for metric in metrics:
        if not all(metric.fits(*size, crop) for size in sizes.values()):
            left.setdefault((metric.smallest, metric.squares, metric.cropped), []).append(metric.name)
    for (side, squares, border), names in left.items():
        stem = next(stem for stem, size in sizes.items() if not METRICS[names[0]].fits(*size, crop))
        need = f"{squares} squares of {side} pixels" if squares > 1 else f"sides of {side} pixels"
        cropped = f" after cropping {crop}" if border else ""
        size = "x".join(map(str, sizes[stem]))
        log.warning("columns %s left out: they need %s%s, and %s is %s", ", ".join(names), need, cropped, stem, size)
    kept = [metric for metric in metrics if not any(metric.name in names for names in left.values())]
    if not kept:
        raise InputError("no column could be computed; see the lines above")
    return kept


def _scored(tasks: Sequence[Task], one: _Pass, settings: Settings) -> Iterator[Scored]:
    count = min(one.workers, len(tasks))
    if count <= 1:
        yield from map(scorer(one.names, settings), tasks)
        return
    # Spawned, since a fork of a process that holds torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(count, context, _start_worker, (one.names, settings)) as pool:
            yield from pool.map(_work, tasks)
    except BrokenProcessPool as error:
        raise FluxSRError("a worker was ended from outside, perhaps for want of memory; try --workers 1") from error


_worker: Callable[[Task], Scored] | None = None  # of a spawned process, whose only work it is


def _start_worker(names: list[str], settings: Settings) -> None:
    global _worker
    torch.set_num_threads(1)  # the processes are what runs in parallel
    _worker = scorer(names, settings)


def _work(task: Task) -> Scored:
    if _worker is None:
        raise RuntimeError("this process was not started by _start_worker")
    return _worker(task)


def _report(name: str, crop: int, rows: dict[str, dict[str, float]], excesses: Sequence[Tensor]) -> Report:
    per_image = {stem: {key: row[key] for key in METRICS if key in row} for stem, row in rows.items()}
    columns = next(iter(per_image.values()))
    mean = {key: float(np.mean([row[key] for row in per_image.values()])) for key in columns}
    if excesses:
        mean["peak16"] = peak16(torch.cat(list(excesses)))
    if not mean:
        raise InputError("no column could be computed; see the lines above")
    return Report(name, crop, {key: mean[key] for key in METRICS if key in mean}, per_image)
