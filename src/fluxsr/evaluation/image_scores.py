"""Scores of one image by the built-in metrics and by those of optional packages.

A metric whose package cannot be used leaves its column out, with one log line that says why.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fluxsr.errors import InputError, first_line, is_untranslatable
from fluxsr.evaluation.catalogue import (
    BUILT_IN,
    CVVDP,
    CVVDP_DISPLAY,
    LPIPS,
    METRICS,
    PIQ,
    PYIQA,
    RAPIDOCR,
    Metric,
)
from fluxsr.evaluation.colour import added_texture, added_tint, colour_difference
from fluxsr.evaluation.folders import load_image
from fluxsr.evaluation.legibility import legibility_function
from fluxsr.evaluation.metrics import crop_border, psnr_rgb, psnr_y, ssim_y
from fluxsr.evaluation.niqe import PristineModel, niqe
from fluxsr.evaluation.piqe import piqe
from fluxsr.evaluation.spectra import band_db, grid_db, grid_excess
from fluxsr.losses.lpips import SqueezeLPIPS

log = logging.getLogger(__name__)

Function = Callable[..., Tensor]
"""Takes images (1, 3, H, W) in [0, 1]: the result and, if the metric compares, its ground truth."""

_EXTRA = {PIQ: "eval", CVVDP: "cvvdp", LPIPS: "lpips", RAPIDOCR: "ocr", PYIQA: "iqa"}
_MODULE = {CVVDP: "pycvvdp", RAPIDOCR: "rapidocr_onnxruntime"}  # where the module and the package have different names
_BUILT_IN: dict[str, Function] = {
    **{"psnr": psnr_y, "ssim": ssim_y, "psnr_rgb": psnr_rgb, "piqe": piqe},
    **{"de2000": colour_difference, "tint": added_tint, "weave": added_texture},
}
_BANDS = ("mid_db", "hf_db")
_GRID = {"grid4", "grid8", "grid16", "peak16"}


@dataclass(frozen=True)
class Settings:
    """How images are scored.

    Attributes:
        crop: border in pixels that metrics against ground truth leave out.
        pristine: NIQE's model; None without a NIQE column.
        lpips: LPIPS's network; None without an LPIPS column.
        device: device of learned metrics.
    """

    crop: int
    pristine: PristineModel | None = None
    lpips: SqueezeLPIPS | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Task:
    """One image to score; hr is None without ground truth."""

    stem: str
    sr: Path
    hr: Path | None


@dataclass(frozen=True)
class Scored:
    """Values of one image by metric, NaN where it has none, and its `grid_excess` (1, 16, 9) if a metric needed it."""

    row: dict[str, float]
    excess: Tensor | None


def scorer(names: Sequence[str], settings: Settings) -> Callable[[Task], Scored]:
    """Return the function that scores an image by the named metrics, whose packages are installed."""
    functions = load_functions([METRICS[name] for name in names], settings)
    return partial(_score, names=frozenset(names), crop=settings.crop, functions=functions)


def _score(task: Task, **settings: Any) -> Scored:
    try:
        return _measure(task, **settings)
    except InputError as error:  # the metrics do not know the name of the image
        raise InputError(f"{task.stem}: {error}") from error


@torch.no_grad()
def _measure(task: Task, *, names: frozenset[str], crop: int, functions: Mapping[str, Function]) -> Scored:
    images = [load_image(task.sr)]
    if task.hr is not None and any(METRICS[name].needs_hr for name in names):
        images.append(load_image(task.hr))
        sizes = [f"{image.shape[-1]}x{image.shape[-2]}" for image in images]
        if sizes[0] != sizes[1]:
            raise InputError(f"SR is {sizes[0]}, HR is {sizes[1]}; they must be of one size")
    height, width = images[0].shape[-2:]
    names = frozenset(name for name in names if METRICS[name].fits(width, height, crop))
    row: dict[str, Tensor] = {}
    for name, function in functions.items():
        if name not in names:
            continue
        metric = METRICS[name]
        inputs = images if metric.needs_hr else images[:1]
        if metric.cropped:
            inputs = [crop_border(image, crop) for image in inputs]
        row[name] = function(*inputs)
    if names.intersection(_BANDS):
        row |= dict(zip(_BANDS, band_db(*(crop_border(image, crop) for image in images)), strict=True))
    excess = grid_excess(images[0]) if names & _GRID else None
    if excess is not None:
        row |= grid_db(excess)
    return Scored({name: float(value) for name, value in row.items() if name in names}, excess)


def load_functions(metrics: Sequence[Metric], settings: Settings) -> dict[str, Function]:
    """Return the functions of the metrics, except the spectral ones. A package that fails to load is left out."""
    functions: dict[str, Function] = {}
    for metric in metrics:
        function: Function | None = None
        if metric.name == "niqe" and settings.pristine is not None:
            function = partial(niqe, model=settings.pristine)
        elif metric.name == "lpips" and settings.lpips is not None:
            network = settings.lpips
            function = _in_float32(lambda sr, hr, network=network: network(sr * 2 - 1, hr * 2 - 1))
        elif metric.source == BUILT_IN:
            function = _BUILT_IN.get(metric.name)
        else:
            function = package_function(metric, settings.device)
        if function is not None:
            functions[metric.name] = function
    return functions


def _in_float32(function: Function) -> Function:
    return lambda *images: function(*(image.float() for image in images))


def installed(metrics: Sequence[Metric]) -> list[Metric]:
    """Return the metrics whose package is installed, without importing it; log which columns are left out."""
    kept = list(metrics)
    for package, extra in _EXTRA.items():
        missing = [metric.name for metric in kept if metric.source == package and not _is_installed(package)]
        if missing:
            command = f'pip install "fluxsr[{extra}]"'
            log.warning("columns %s left out: %s is not installed (%s)", ", ".join(missing), package, command)
            kept = [metric for metric in kept if metric.name not in missing]
    return kept


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(_MODULE.get(package, package)) is not None
    except ValueError:  # a module that was blocked or half imported has no spec
        return False


def piq_function(name: str) -> Function:
    """Return a metric of piq."""
    import piq

    return getattr(piq, {"ms_ssim": "multi_scale_ssim"}.get(name, name))


def cvvdp_function() -> Function:
    """Return ColorVideoVDP on the CPU, in JOD (10 means no visible difference).

    Its parameters are part of the package.
    """
    with _root_handlers_kept():
        import pycvvdp

        judge: Any = pycvvdp.cvvdp(display_name=CVVDP_DISPLAY, quiet=True, device=torch.device("cpu"))

    def score(sr: Tensor, hr: Tensor) -> Tensor:
        with _root_handlers_kept():
            return judge.predict(sr, hr, dim_order="BCHW")[0]

    return score


@contextlib.contextmanager
def _root_handlers_kept() -> Iterator[None]:
    """Restore the root logger's handlers, because cvvdp's calls of ``logging.debug`` add one for all packages."""
    handlers = list(logging.root.handlers)
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers


def network_function(metric: Metric, device: str) -> Function:
    """Return a metric of pyiqa or of the package lpips, which download missing weights."""
    if metric.source == LPIPS:
        import lpips

        model: Any = partial(lpips.LPIPS(net=metric.model, verbose=False).to(device), normalize=True)
    else:
        import pyiqa

        model = pyiqa.create_metric(metric.model, device=device)
    return lambda *images: model(*(image.to(device) for image in images)).cpu()


def package_function(metric: Metric, device: str = "cpu") -> Function | None:
    """Return a metric of a package; None with a line in the log if it cannot be loaded."""
    try:
        if metric.source == PIQ:
            function = piq_function(metric.name)
        elif metric.source == CVVDP:
            function = cvvdp_function()
        elif metric.source == RAPIDOCR:
            function = legibility_function()
        else:
            function = network_function(metric, device)
    except Exception as error:  # packages and their dependencies raise any type when offline or out of date
        if is_untranslatable(error) and not isinstance(error, ImportError):  # torchvision of another torch, for one
            raise
        log.warning("column %s left out: its package cannot be loaded (%s)", metric.name, first_line(error)[:160])
        return None
    return _in_float32(function)
