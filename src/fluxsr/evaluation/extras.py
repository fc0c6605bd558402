"""Metrics of optional packages; one that is missing leaves its columns out, with a clear line."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from torch import Tensor

from fluxsr.errors import InputError

log = logging.getLogger(__name__)

FullReference = Callable[[Tensor, Tensor], Tensor]
NoReference = Callable[[Tensor], Tensor]

PIQ_COLUMNS = ("ms_ssim", "fsim", "vsi", "haarpsi", "dss", "gmsd", "mdsi")
PIQ_SMALLEST_SIDE = 161
"""Pixels, after cropping: ms_ssim halves the image four times under an 11-pixel window."""


def full_reference() -> dict[str, FullReference]:
    """The metrics of piq on (1, 3, H, W) float32 images in [0, 1]; {} where it is not installed."""
    try:
        import piq
    except ImportError:
        log.warning(
            "columns %s left out: piq is not installed (pip install 'fluxsr[eval]')",
            ", ".join(PIQ_COLUMNS),
        )
        return {}
    named: dict[str, FullReference] = {name: getattr(piq, name) for name in PIQ_COLUMNS[1:]}
    return {"ms_ssim": piq.multi_scale_ssim, **named}


def no_reference(niqe_params: Path | None = None) -> dict[str, NoReference]:
    """PIQE and NIQE of pyiqa, on (1, 3, H, W) float32 images in [0, 1]; {} where it is not
    installed.

    Args:
        niqe_params: NIQE's pristine model, .npz or .mat (niqe_pris_params.npz of BasicSR, or
            MATLAB's own); without it there is no NIQE column.

    Raises:
        InputError: that file cannot be read.
    """
    try:
        import pyiqa
    except ImportError:
        log.warning("columns niqe, piqe left out: pyiqa is not installed (pip install 'fluxsr[iqa]')")
        return {}
    models: dict[str, NoReference] = {"piqe": pyiqa.create_metric("piqe", device="cpu")}
    if niqe_params is None:
        log.warning("column niqe left out: name its pristine model with --niqe-params")
        return models
    return {"niqe": _niqe(pyiqa, Path(niqe_params)), **models}


def _niqe(pyiqa: Any, path: Path) -> NoReference:
    """NIQE from the named file, as pyiqa would download one. It reads MATLAB's format alone."""
    import scipy.io

    mean, covariance = read_niqe_params(path)
    with tempfile.TemporaryDirectory() as folder:
        matlab = Path(folder) / "niqe.mat"
        scipy.io.savemat(matlab, {"mu_prisparam": mean, "cov_prisparam": covariance})
        model: NoReference = pyiqa.create_metric("niqe", device="cpu", pretrained_model_path=str(matlab))
    return model


def read_niqe_params(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean (1, 36) and covariance (36, 36) of NIQE's pristine model, from .npz or .mat.

    Raises:
        InputError: the file is missing or holds neither spelling of the two arrays.
    """
    import scipy.io

    if not path.is_file():
        raise InputError(f"no such NIQE parameter file: {path}")
    try:
        arrays = np.load(path) if path.suffix == ".npz" else scipy.io.loadmat(path)
    except (OSError, ValueError, BadZipFile, scipy.io.matlab.MatReadError) as error:
        raise InputError(f"{path} is no .npz or .mat file of NIQE parameters: {error}") from error
    for stem in ("pris_param", "prisparam"):
        if f"mu_{stem}" in arrays and f"cov_{stem}" in arrays:
            return np.asarray(arrays[f"mu_{stem}"]), np.asarray(arrays[f"cov_{stem}"])
    raise InputError(f"{path} lacks mu_pris_param and cov_pris_param (or the _prisparam spelling)")
