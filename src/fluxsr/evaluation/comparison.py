"""Spectra of whole folders, the places where methods differ most, and maps that explain numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.errors import InputError
from fluxsr.evaluation.folders import check_stems, list_images, load_image
from fluxsr.evaluation.metrics import luma
from fluxsr.evaluation.spectra import grid_excess, power_spectrum, radial_power

BINS = 64
FREQUENCIES = [(k + 0.5) / (2 * BINS) for k in range(BINS)]
"""Centres of the rings of a radial spectrum, in cycles per pixel."""
_SPAN = 219  # of luma, 16..235


@dataclass(frozen=True, order=True)
class Window:
    """A square of an image, in pixels. Squares are ordered by how much methods differ in them.

    Attributes:
        spread: standard deviation of luma between methods, averaged over the square, in 8-bit steps.
    """

    spread: float
    stem: str
    top: int
    left: int
    side: int

    def of(self, image: Tensor) -> Tensor:
        """Return this square of (B, 3, H, W)."""
        return image[..., self.top : self.top + self.side, self.left : self.left + self.side]


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of several folders of the same images.

    Attributes:
        radial: mean power in dB at each of FREQUENCIES, by the folder's name.
        harmonics: mean excess in dB at 1/16 .. 8/16 cycles per pixel along both axes, by the folder's name.
        windows: for every image the square in which the folders differ most, the largest difference first.
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
        folders: folders of the methods, and of ground truth if there is any, by name.
        stems: file stems of the images, which every folder must hold with sides of 128 pixels or more.
        truth: name of the ground truth. Windows compare the methods; a single method is compared with ground truth.
        side: side of the windows in pixels.
        progress: called with the number of images done and in all.

    Raises:
        InputError: an image is missing, unreadable, too small, or has different sizes in different folders.
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
        listed = ", ".join(f"{name} is {size}" for name, size in sizes.items())
        raise InputError(f"{stem}: {listed}; they must be of one size")


def _axes(excess: Tensor) -> list[float]:
    """Return the mean of the harmonics k/16 along both axes, k = 1..8, from (16, 9)."""
    steps = torch.arange(1, 9)
    return ((excess[0, steps] + excess[steps, 0]) / 2).tolist()


def where_methods_differ(stem: str, images: Sequence[Tensor], side: int) -> Window:
    """Return the square of an image in which the results of several methods differ most.

    Args:
        stem: name of the image.
        images: (1, 3, H, W) each, RGB in [0, 1], of one size; two or more.
        side: side of the square; at most the image's shorter side.
    """
    spread = torch.stack([luma(image) for image in images]).std(0)  # (1, H, W)
    side = min(side, *spread.shape[1:])
    stride = max(1, side // 4)
    means = F.avg_pool2d(spread[None], side, stride)[0, 0]
    best = int(means.argmax())
    row, column = divmod(best, means.shape[1])
    return Window(float(means[row, column]), stem, row * stride, column * stride, side)


def difference_map(sr: Tensor, hr: Tensor, gain: float = 4) -> Tensor:
    """Return a map of `sr` luma minus `hr` luma, (B, 3, H, W) in [0, 1]: white is equal, red brighter, blue darker.

    Args:
        sr, hr: (B, 3, H, W), RGB in [0, 1].
        gain: factor on differences; 1 / gain of the range is full colour.
    """
    offset = (gain * (luma(sr) - luma(hr)) / _SPAN).clamp(-1, 1)
    brighter, darker = offset.clamp(min=0), (-offset).clamp(min=0)
    return torch.stack([1 - darker, 1 - brighter - darker, 1 - brighter], 1)
