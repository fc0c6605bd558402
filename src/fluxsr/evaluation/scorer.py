"""The metrics of one image, as a function that any process can build for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.evaluation.catalogue import CVVDP, METRICS, PYIQA
from fluxsr.evaluation.diagnostics import band_db, grid_db, grid_excess
from fluxsr.evaluation.extras import Function, cvvdp_function, learned_model, piq_functions
from fluxsr.evaluation.folders import load_image
from fluxsr.evaluation.metrics import crop_border, psnr_rgb, psnr_y, ssim_y
from fluxsr.evaluation.niqe import PristineModel, niqe
from fluxsr.evaluation.piqe import piqe
from fluxsr.losses.lpips import SqueezeLPIPS

_GRID = {"grid4", "grid8", "grid16", "peak16"}


@dataclass(frozen=True)
class Settings:
    """How images are scored.

    Attributes:
        crop: border left out of metrics against HR, pixels.
        pristine: NIQE's model; without it there is no NIQE column.
        lpips: LPIPS's network; without it there is no LPIPS column.
        device: device of learned metrics alone.
    """

    crop: int
    pristine: PristineModel | None = None
    lpips: SqueezeLPIPS | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Task:
    """One image to score; hr is None where it has no ground truth."""

    stem: str
    sr: Path
    hr: Path | None


@dataclass(frozen=True)
class Scored:
    """Metric -> value of one image, and its `grid_excess`, (1, 16, 9), where the grid was asked for."""

    row: dict[str, float]
    excess: Tensor | None


def scorer(names: Sequence[str], settings: Settings) -> Callable[[Task], Scored]:
    """Return the function that scores an image with the named metrics, whose packages are installed."""
    return partial(_score, names=frozenset(names), settings=settings, functions=_functions(names, settings))


def _functions(names: Sequence[str], settings: Settings) -> dict[str, Function]:
    """Return the metrics that are not part of this package, and LPIPS, by name."""
    metrics = [METRICS[name] for name in names]
    functions: dict[str, Function] = piq_functions(metrics)
    if "lpips" in names and (network := settings.lpips) is not None:
        functions["lpips"] = lambda sr, hr: network(sr * 2 - 1, hr * 2 - 1)
    for metric in metrics:
        model = None
        if metric.source == CVVDP:
            model = cvvdp_function()
        elif metric.source == PYIQA:
            model = learned_model(metric, settings.device)
        if model is not None:
            functions[metric.name] = model
    return functions


def _score(task: Task, **settings: Any) -> Scored:
    try:
        return _measured(task, **settings)
    except InputError as error:  # the metrics do not know which image they are given
        raise InputError(f"{task.stem}: {error}") from error


@torch.no_grad()
def _measured(task: Task, *, names: frozenset[str], settings: Settings, functions: dict[str, Function]) -> Scored:
    image = load_image(task.sr)
    alone = {"piqe": piqe} | ({"niqe": partial(niqe, model=settings.pristine)} if settings.pristine else {})
    row = {name: float(metric(image)) for name, metric in alone.items() if name in names}
    for name, function in functions.items():
        if not METRICS[name].needs_hr:
            row[name] = float(function(image.float()))
    if task.hr is not None and any(METRICS[name].needs_hr for name in names):
        row |= _against(image, load_image(task.hr), settings.crop, names, functions)
    excess = grid_excess(image) if names & _GRID else None
    if excess is not None:
        row |= {name: float(value) for name, value in grid_db(excess).items() if name in names}
    return Scored(row, excess)


def _against(
    sr: Tensor, hr: Tensor, crop: int, names: frozenset[str], functions: dict[str, Function]
) -> dict[str, float]:
    """Metrics of one image against its ground truth."""
    if sr.shape != hr.shape:
        sizes = [f"{image.shape[-1]}x{image.shape[-2]}" for image in (sr, hr)]
        raise InputError(f"SR is {sizes[0]}, HR is {sizes[1]}; they must be of one size")
    whole = {name for name in functions if METRICS[name].whole}
    row = {name: float(functions[name](sr.float(), hr.float())) for name in whole}
    sr, hr = crop_border(sr, crop), crop_border(hr, crop)
    built_in = {"psnr": psnr_y, "ssim": ssim_y, "psnr_rgb": psnr_rgb}
    row |= {name: float(metric(sr, hr)) for name, metric in built_in.items() if name in names}
    if names & {"mid_db", "hf_db"}:
        bands = dict(zip(("mid_db", "hf_db"), map(float, band_db(sr, hr)), strict=True))
        row |= {name: value for name, value in bands.items() if name in names}
    for name, function in functions.items():
        if METRICS[name].cropped:
            row[name] = float(function(sr.float(), hr.float()))
    return row
