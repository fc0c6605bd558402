"""Spectra of whole folders, and the images that are worth a look: one pass, one image at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.evaluation.diagnostics import grid_excess, power_spectrum, radial_power
from fluxsr.evaluation.folders import check_stems, list_images, load_image
from fluxsr.evaluation.metrics import luma
from fluxsr.evaluation.pictures import Window, where_methods_differ

BINS = 64
FREQUENCIES = [(k + 0.5) / (2 * BINS) for k in range(BINS)]
"""Centres of the rings of a radial spectrum, in cycles per pixel."""


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of several folders of the same images.

    Attributes:
        radial: folder's name -> mean power in dB at each of FREQUENCIES.
        harmonics: folder's name -> mean excess in dB at 1/16 .. 8/16 cycles per pixel along both axes.
        windows: one for every image, the one in which the folders differ most, by falling difference.
    """

    radial: dict[str, list[float]]
    harmonics: dict[str, list[float]]
    windows: list[Window] = field(repr=False)


def diagnose(
    folders: Mapping[str, Path],
    stems: Sequence[str],
    *,
    truth: str | None = None,
    side: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Diagnose folders of the same images.

    Args:
        folders: name -> folder; methods, and ground truth where there is one.
        stems: of the images, in every folder; sides of 128 pixels or more.
        truth: which folder is ground truth: windows are where the others differ, from it only if there is but one.
        side: of the windows.
        progress: called with (images done, images in all).

    Raises:
        InputError: an image that is missing, unreadable, too small, or not of one size in all folders.
    """
    paths = {name: list_images(folder) for name, folder in folders.items()}
    for name, folder in folders.items():
        check_stems(stems, paths[name], folder)
    radial: dict[str, list[Tensor]] = {name: [] for name in folders}
    excess: dict[str, list[Tensor]] = {name: [] for name in folders}
    windows = []
    for number, stem in enumerate(stems, 1):
        images = {name: load_image(paths[name][stem]) for name in folders}
        for name, image in images.items():
            try:
                excess[name].append(grid_excess(image)[0])
            except InputError as error:
                raise InputError(f"{paths[name][stem]}: {error}") from error
            radial[name].append(10 * radial_power(power_spectrum(luma(image)))[0].log10())
        methods = [image for name, image in images.items() if name != truth or len(images) == 2]
        if len(methods) > 1:
            _check_sizes(stem, images)
            windows.append(where_methods_differ(stem, methods, side))
        if progress:
            progress(number, len(stems))
    return Diagnosis(
        {name: torch.stack(rows).mean(0).tolist() for name, rows in radial.items()},
        {name: _axes(torch.stack(rows).mean(0)) for name, rows in excess.items()},
        sorted(windows, reverse=True),
    )


def _check_sizes(stem: str, images: Mapping[str, Tensor]) -> None:
    sizes = {name: f"{image.shape[-1]}x{image.shape[-2]}" for name, image in images.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} is {size}" for name, size in sizes.items())
        raise InputError(f"{stem}: {told}; they must be of one size")


def _axes(excess: Tensor) -> list[float]:
    """Mean of the harmonics k/16 along both axes, k = 1..8; (16, 9) -> 8 values."""
    steps = torch.arange(1, 9)
    return ((excess[0, steps] + excess[steps, 0]) / 2).tolist()
