"""What the page says about images, as HTML. File names may hold anything and are escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from fluxsr.imaging.picture import Picture
from fluxsr.names import printable
from fluxsr.serving.service import UpscaledFile
from fluxsr.serving.web_jobs import Batch


def describe_input(picture: Picture) -> str:
    """Return size, format and notes of an image that a visitor sent."""
    height, width = picture.lr.shape[-2:]
    depth = ", 16 bit" if picture.sixteen else ""
    return f"<p>{width} × {height} pixels, {escape(picture.format)}{depth}</p>{_notes(picture.notes)}"


def describe_result(found: UpscaledFile) -> str:
    """Return name, sizes, time and notes of a result."""
    hint = "<p class='quiet'>Drag the line to compare. Zoom with the wheel or two fingers.</p>"
    return f"<p><b>{_text(found.path.name)}</b>: {_sizes(found)}</p>{_notes(found.notes)}{hint}"


def describe_batch(batch: Batch) -> str:
    """Return counts and a table with a row for each image of a batch."""
    counts = [f"{len(batch.done)} done"]
    counts += [f"{len(batch.failed)} failed"] if batch.failed else []
    counts += [f"{len(batch.left)} left"] if batch.left else []
    rows = [
        *(_row("✓", name, f"{_sizes(found)}{_notes(found.notes)}") for name, found in batch.done),
        *(_row("✗", name, _text(reason.removeprefix(printable(name)).lstrip(": "))) for name, reason in batch.failed),
        *(_row("–", name, _text(batch.reason)) for name in batch.left),
    ]
    return f"<p><b>{', '.join(counts)}</b></p><table class='files'>{''.join(rows)}</table>"


def _sizes(found: UpscaledFile) -> str:
    before, after = found.before, found.after
    return f"{before[0]} × {before[1]} → {after[0]} × {after[1]}, {found.seconds:.1f} s"


def _row(mark: str, name: str, text: str) -> str:
    return f"<tr><td>{mark}</td><td><b>{_text(name)}</b><br>{text}</td></tr>"


def _text(text: str) -> str:
    return escape(printable(text))


def _notes(notes: Iterable[str]) -> str:
    lines = "".join(f"<li>{_text(note)}</li>" for note in notes)
    return f"<ul>{lines}</ul>" if lines else ""
