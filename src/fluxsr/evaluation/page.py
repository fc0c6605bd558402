"""One self-contained HTML file of an evaluation: tables, charts, a before/after slider and crops."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from fluxsr.evaluation.comparison import FREQUENCIES, Diagnosis, Window, difference_map
from fluxsr.evaluation.folders import list_images, load_image
from fluxsr.evaluation.tables import Table, turned
from fluxsr.imaging.io import to_pil

VIEW = 512  # largest side of a picture under the slider, pixels
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito's
_WIDTH, _HEIGHT = 560, 300  # size of a chart
_LEFT, _RIGHT, _BOTTOM = 52, 12, 44
_KEY = 16  # height of a line of the legend, which is above the frame

Points = Sequence[tuple[float, float]]
SHOWN = 6  # number of images on the page


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
        title: what was measured, and on which images.
        tables: scores, and the comparison of two methods if there is one.
        diagnosis: diagnosis of the folders.
        folders: the same folders by name.
        truth: name of the ground truth.
        lr: low-resolution images by file stem; their pixels are shown as squares.
        similarity: similarity of tokens in each block, -1..1, by the curve's name.

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


def _charts(
    diagnosis: Diagnosis, truth: str | None, similarity: Mapping[str, Sequence[float]] | None
) -> list[dict[str, str]]:
    radial, label, text = diagnosis.radial, "power, dB", "Mean over all images."
    if truth is not None:
        level, label = radial[truth], f"power over {truth}, dB"
        radial = {
            name: [a - b for a, b in zip(row, level, strict=True)] for name, row in radial.items() if name != truth
        }
        text = "Mean over all images. Below 0: detail is missing; above: there is more than in the ground truth."
    spectra = {name: list(zip(FREQUENCIES, row, strict=True)) for name, row in radial.items()}
    charts = [_chart("Radial spectra", text, spectra, "cycles per pixel", label)]
    grid = {name: list(enumerate(row, 1)) for name, row in diagnosis.harmonics.items()}
    text = (
        "Along both axes, mean over all images. Odd harmonics: a pattern of 16 px (transformer patches); "
        "2 and 6: of 8 px (latent pixels, JPEG); 4 and 8: of 4 or 2 px."
    )
    x_label, y_label = "harmonic of 1/16 cycle per pixel", "excess over neighbours, dB"
    charts.append(_chart("Grid peaks", text, grid, x_label, y_label, marks=True))
    if similarity:
        blocks = {name: list(enumerate(row)) for name, row in similarity.items()}
        text = "Of each block's attention output, mean over tokens; 1: all alike. This is what ADL lowers."
        charts.append(_chart("Token similarity", text, blocks, "block", "cosine to the mean token", marks=True))
    return charts


def _chart(
    title: str, text: str, series: Mapping[str, Points], x_label: str, y_label: str, marks: bool = False
) -> dict[str, str]:
    return {"title": title, "svg": Markup(line_chart(series, x_label, y_label, marks)), "text": text}


def _look(
    window: Window, paths: Mapping[str, dict[str, Path]], truth: str | None, lr: Mapping[str, Path]
) -> dict[str, Any]:
    """Return one image of the page: the versions under the slider, and rows of crops below."""
    images = {name: load_image(found[window.stem]) for name, found in paths.items()}
    height, width = next(iter(images.values())).shape[-2:]
    top, left = (
        max(0, min(start + window.side // 2 - VIEW // 2, size - VIEW))
        for start, size in ((window.top, height), (window.left, width))
    )
    views = [
        _cell(name, image[..., top : top + VIEW, left : left + VIEW], kind="JPEG") for name, image in images.items()
    ]
    crops = {name: window.of(image) for name, image in images.items()}
    rows = [[_cell(name, crop) for name, crop in crops.items()]]
    if window.stem in lr:
        rows[0].insert(0, _cell("LR", _low(window, load_image(lr[window.stem]), height)))
    if truth is not None:
        methods = {name: crop for name, crop in crops.items() if name != truth}
        maps = {f"{name} - {truth}, x4": difference_map(crop, crops[truth]) for name, crop in methods.items()}
        rows.append([_cell(name, image) for name, image in maps.items()])
    where = f"{window.side} px from ({window.left}, {window.top}), methods differ by {window.spread:.1f} grey levels"
    return {"title": f"{window.stem}: {where}", "views": views, "rows": rows, "width": min(VIEW, width)}


def _low(window: Window, image: Tensor, height: int) -> Tensor:
    """Return the part of an LR image that the window shows."""
    scale = height / image.shape[-2]
    top, left, side = (round(value / scale) for value in (window.top, window.left, window.side))
    return image[..., top : top + side, left : left + side]


def _cell(caption: str, image: Tensor, kind: str = "PNG") -> dict[str, str]:
    """Return a caption and an image as a data URI."""
    file = io.BytesIO()
    to_pil(image).save(file, kind, **({"quality": 92, "subsampling": 0} if kind == "JPEG" else {}))
    source = f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"caption": caption, "source": source}


def line_chart(series: Mapping[str, Points], x_label: str, y_label: str, marks: bool = False) -> str:
    """Return an SVG element with one line per series, axes, ticks and a legend.

    Args:
        series: points (x, y) by name, all finite; at least one point in all.
        x_label, y_label: labels of the axes, with units.
        marks: whether to draw the points too.
    """
    points = [point for line in series.values() for point in line]
    x_ticks, y_ticks = (_ticks([point[axis] for point in points]) for axis in (0, 1))
    frame_top = _KEY * (len(series) + 1)
    spans = [(ticks[0], ticks[-1] - ticks[0]) for ticks in (x_ticks, y_ticks)]

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = ((value - low) / span for value, (low, span) in zip((x, y), spans, strict=True))
        wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - frame_top - _BOTTOM
        return round(_LEFT + across * wide, 1), round(frame_top + (1 - up) * high, 1)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(y_label)}">']
    for y in y_ticks:
        _, height = place(x_ticks[0], y)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height}" y2="{height}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{height + 4}" text-anchor="end">{y:g}</text>')
    for x in x_ticks:
        across, bottom = place(x, y_ticks[0])
        parts.append(f'<text x="{across}" y="{bottom + 16}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    middle = (frame_top + _HEIGHT - _BOTTOM) / 2
    turned = f'transform="rotate(-90 12 {middle})"'
    parts.append(f'<text x="12" y="{middle}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        placed = [place(x, y) for x, y in line]
        path = " ".join(f"{x},{y}" for x, y in placed)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        if marks:
            parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in placed]
        height = _KEY * (number + 1)
        label = f'<text class="key" x="{_LEFT}" y="{height}" fill="{colour}">'
        parts.append(f"{label}{escape(name)}</text>")
    return "".join([*parts, "</svg>"])


def _ticks(values: Sequence[float]) -> list[float]:
    """Return about five round numbers that cover the values."""
    low, high = min(values), max(values)
    rough = (high - low or abs(high) or 1) / 5
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    if all(value == int(value) for value in values):
        step = max(1, step)  # there is nothing between two blocks, or two harmonics
    first, last = math.floor(low / step), math.ceil(high / step)
    last = last if last > first else first + 1
    return [round(step * k, 10) for k in range(first, last + 1)]
