"""One self-contained HTML file of an evaluation: tables, charts, a before/after slider and crops."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from fluxsr.evaluation.charts import line_chart
from fluxsr.evaluation.diagnosis import FREQUENCIES, Diagnosis
from fluxsr.evaluation.folders import list_images, load_image
from fluxsr.evaluation.pictures import Window, difference_map, edge_map
from fluxsr.evaluation.tables import Table, turned
from fluxsr.imaging.io import to_pil

VIEW = 512  # largest side of a picture under the slider, pixels
SHOWN = 6


@dataclass(frozen=True)
class Chart:
    title: str
    svg: Markup
    text: str


@dataclass(frozen=True)
class Cell:
    caption: str
    source: str
    """Return an image as a data URI."""


@dataclass(frozen=True)
class Look:
    """One image on the page: the versions under the slider, and rows of crops below."""

    title: str
    views: list[Cell]
    rows: list[list[Cell]]
    width: int


def page(
    title: str,
    tables: Sequence[Table],
    diagnosis: Diagnosis,
    folders: Mapping[str, Path],
    *,
    truth: str | None = None,
    lr: Mapping[str, Path] | None = None,
    similarity: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """Return the HTML of the page.

    Args:
        title: what was measured, and on what.
        tables: scores, and the comparison where there is one.
        diagnosis: of the folders.
        folders: name -> folder, as the diagnosis was made of.
        truth: which of them is ground truth.
        lr: stem -> low-resolution image, shown with its pixels as squares.
        similarity: a curve's name -> similarity of tokens in each block, -1..1.

    Raises:
        InputError: an image cannot be read.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = resources.files("fluxsr.evaluation").joinpath("page.html").read_text(encoding="utf-8")
    paths = {name: list_images(folder) for name, folder in folders.items()}
    looks = [_look(window, paths, truth, lr or {}) for window in diagnosis.windows[:SHOWN]]
    return environment.from_string(text).render(
        title=title, tables=[turned(tables[0]), *tables[1:]], charts=_charts(diagnosis, truth, similarity), looks=looks
    )


def _charts(diagnosis: Diagnosis, truth: str | None, similarity: Mapping[str, Sequence[float]] | None) -> list[Chart]:
    charts = []
    if truth is not None:
        level = diagnosis.radial[truth]
        radial = {
            name: list(zip(FREQUENCIES, (a - b for a, b in zip(row, level, strict=True)), strict=True))
            for name, row in diagnosis.radial.items()
            if name != truth
        }
        charts.append(
            Chart(
                "Radial spectra",
                Markup(line_chart(radial, "cycles per pixel", f"power over {truth}, dB")),
                "Mean over all images. Below 0: detail is missing; above: there is more than in the ground truth.",
            )
        )
    else:
        radial = {name: list(zip(FREQUENCIES, row, strict=True)) for name, row in diagnosis.radial.items()}
        charts.append(
            Chart(
                "Radial spectra", Markup(line_chart(radial, "cycles per pixel", "power, dB")), "Mean over all images."
            )
        )
    grid = {name: [(k, y) for k, y in enumerate(row, 1)] for name, row in diagnosis.harmonics.items()}
    charts.append(
        Chart(
            "Grid peaks",
            Markup(line_chart(grid, "harmonic of 1/16 cycle per pixel", "excess over neighbours, dB", marks=True)),
            "Along both axes, mean over all images. Odd harmonics: a pattern of 16 px (transformer patches); "
            "2 and 6: of 8 px (latent pixels, JPEG); 4 and 8: of 4 or 2 px.",
        )
    )
    if similarity:
        blocks = {name: [(k, y) for k, y in enumerate(row)] for name, row in similarity.items()}
        charts.append(
            Chart(
                "Token similarity",
                Markup(line_chart(blocks, "block", "cosine to the mean token", marks=True)),
                "Of each block's attention output, mean over tokens; 1: all alike. This is what ADL lowers.",
            )
        )
    return charts


def _look(window: Window, paths: Mapping[str, dict[str, Path]], truth: str | None, lr: Mapping[str, Path]) -> Look:
    images = {name: load_image(found[window.stem]) for name, found in paths.items()}
    height, width = next(iter(images.values())).shape[-2:]
    top, left = (
        max(0, min(start + window.side // 2 - VIEW // 2, size - VIEW))
        for start, size in ((window.top, height), (window.left, width))
    )
    views = [
        Cell(name, _uri(image[..., top : top + VIEW, left : left + VIEW], "JPEG")) for name, image in images.items()
    ]
    crops = {name: window.of(image) for name, image in images.items()}
    rows = [[Cell(name, _uri(crop)) for name, crop in crops.items()]]
    if window.stem in lr:
        rows[0].insert(0, Cell("LR", _uri(_low(window, load_image(lr[window.stem]), height))))
    edges = [Cell(f"{name}: edges", _uri(edge_map(crop))) for name, crop in crops.items()]
    if truth is not None:
        methods = {name: crop for name, crop in crops.items() if name != truth}
        rows.append(
            [Cell(f"{name} - {truth}, x4", _uri(difference_map(crop, crops[truth]))) for name, crop in methods.items()]
        )
    rows.append(edges)
    where = f"{window.side} px from ({window.left}, {window.top}), methods differ by {window.spread:.1f} grey levels"
    return Look(f"{window.stem}: {where}", views, rows, min(VIEW, width))


def _low(window: Window, image: Tensor, height: int) -> Tensor:
    """Return the part of an LR image that the window shows."""
    scale = height / image.shape[-2]
    top, left, side = (round(value / scale) for value in (window.top, window.left, window.side))
    return image[..., top : top + side, left : left + side]


def _uri(image: Tensor, kind: str = "PNG") -> str:
    file = io.BytesIO()
    picture: Image.Image = to_pil(image)
    picture.save(file, kind, **({"quality": 92, "subsampling": 0} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
