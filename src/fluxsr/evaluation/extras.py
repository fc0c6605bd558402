"""Metrics of optional packages. What is missing leaves its column out, with one line that says so."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fluxsr.errors import is_untranslatable
from fluxsr.evaluation.catalogue import CVVDP, CVVDP_DISPLAY, PIQ, PYIQA, Metric

log = logging.getLogger(__name__)

Function = Callable[..., Tensor]
"""Takes (1, 3, H, W) float32 images in [0, 1]: SR, and HR where the metric compares."""

_EXTRA = {PIQ: "eval", CVVDP: "cvvdp", PYIQA: "iqa"}
_MODULE = {CVVDP: "pycvvdp"}  # where it differs from the package's name


def installed(metrics: Sequence[Metric]) -> list[Metric]:
    """Those whose package is installed; one line tells which columns are left out. Imports nothing."""
    kept = list(metrics)
    for package, extra in _EXTRA.items():
        missing = [metric.name for metric in kept if metric.source == package and not _is_there(package)]
        if missing:
            command = f'pip install "fluxsr[{extra}]"'
            log.warning("columns %s left out: %s is not installed (%s)", ", ".join(missing), package, command)
            kept = [metric for metric in kept if metric.name not in missing]
    return kept


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(_MODULE.get(package, package)) is not None
    except ValueError:  # a module that was blocked or half imported has no spec
        return False


def piq_functions(metrics: Sequence[Metric]) -> dict[str, Function]:
    """Functions of the metrics that piq computes; imports it only if there is one."""
    wanted = [metric.name for metric in metrics if metric.source == PIQ]
    if not wanted:
        return {}
    import piq

    return {name: getattr(piq, {"ms_ssim": "multi_scale_ssim"}.get(name, name)) for name in wanted}


def cvvdp_function() -> Function | None:
    """ColorVideoVDP on the CPU, in JOD; 10 means no visible difference. Its parameters are part of the package.

    None, and one line, where the package cannot be imported.
    """
    try:
        with _root_handlers_kept():
            import pycvvdp

            judge: Any = pycvvdp.cvvdp(display_name=CVVDP_DISPLAY, quiet=True, device=torch.device("cpu"))
    except (ImportError, OSError, RuntimeError) as error:  # torchvision of another torch; ffmpeg's bindings missing
        log.warning("column cvvdp left out: its package cannot be imported (%s)", _first_line(error))
        return None

    def score(sr: Tensor, hr: Tensor) -> Tensor:
        with _root_handlers_kept():
            return judge.predict(sr, hr, dim_order="BCHW")[0]

    return score


@contextlib.contextmanager
def _root_handlers_kept() -> Iterator[None]:
    """Undo what cvvdp does to the root logger: its calls of ``logging.debug`` give it a handler, for all packages."""
    handlers = list(logging.root.handlers)
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers


def learned_model(metric: Metric, device: str = "cpu") -> Function | None:
    """A learned metric of pyiqa with its weights, fetched where they are not yet on the disk.

    None, and one line, where they cannot be had.
    """
    import pyiqa

    try:
        model: Any = pyiqa.create_metric(metric.model, device=device)
    except Exception as error:  # pyiqa and what it loads with raise anything when offline or out of date
        if is_untranslatable(error):
            raise
        log.warning("column %s left out: its model cannot be loaded (%s)", metric.name, _first_line(error))
        return None
    return lambda *images: model(*(image.to(device) for image in images)).cpu()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:160] or type(error).__name__
