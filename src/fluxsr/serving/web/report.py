"""What the page says of pictures, as HTML; names of files may hold anything and are escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from fluxsr.imaging.picture import Picture
from fluxsr.names import printable
from fluxsr.serving.web.work import Batch, Made


def of_picture(picture: Picture) -> str:
    """A picture that was sent: size, format, and what is worth knowing of it."""
    height, width = picture.lr.shape[-2:]
    depth = ", 16 bit" if picture.sixteen else ""
    return f"<p>{width} × {height} pixels, {escape(picture.format)}{depth}</p>{_notes(picture.notes)}"


def of_one(made: Made) -> str:
    """A result."""
    hint = "<p class='quiet'>Drag the line; zoom with the wheel or two fingers.</p>"
    return f"<p><b>{_text(made.path.name)}</b>: {_sizes(made)}, {made.seconds:.1f} s</p>{_notes(made.notes)}{hint}"


def of_batch(found: Batch) -> str:
    """What became of a batch, picture by picture."""
    counts = [f"{len(found.made)} done"]
    counts += [f"{len(found.bad)} failed"] if found.bad else []
    counts += [f"{len(found.left)} left"] if found.left else []
    rows = [
        *(_row("✓", name, f"{_sizes(made)}, {made.seconds:.1f} s{_notes(made.notes)}") for name, made in found.made),
        *(_row("✗", name, _text(reason.removeprefix(printable(name)).lstrip(": "))) for name, reason in found.bad),
        *(_row("–", name, _text(found.why)) for name in found.left),
    ]
    return f"<p><b>{', '.join(counts)}</b></p><table class='files'>{''.join(rows)}</table>"


def _sizes(made: Made) -> str:
    return f"{made.before[0]} × {made.before[1]} → {made.after[0]} × {made.after[1]}"


def _row(mark: str, name: str, text: str) -> str:
    return f"<tr><td>{mark}</td><td><b>{_text(name)}</b><br>{text}</td></tr>"


def _text(text: str) -> str:
    return escape(printable(text))


def _notes(notes: Iterable[str]) -> str:
    lines = "".join(f"<li>{_text(note)}</li>" for note in notes)
    return f"<ul>{lines}</ul>" if lines else ""
