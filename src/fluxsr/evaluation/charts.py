"""Line charts as SVG, for a self-contained page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito's
_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _BOTTOM = 52, 12, 44
_KEY = 16  # height of a line of the legend, which stands above the frame

Points = Sequence[tuple[float, float]]


def line_chart(series: Mapping[str, Points], x_label: str, y_label: str, marks: bool = False) -> str:
    """Return an SVG element with one line per series, axes, ticks and a legend.

    Args:
        series: name -> points (x, y), finite; one point or more in all.
        x_label, y_label: with their units.
        marks: draw the points, too.
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
