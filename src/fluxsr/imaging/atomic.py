"""Atomic writes: a file appears complete or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from fluxsr.errors import OutputError, first_line
from fluxsr.names import storable

PART = ".part"  # ending of incomplete files


@contextmanager
def replaced(path: Path, times: tuple[int, int] | None = None) -> Iterator[IO[bytes]]:
    """Open a file for writing that replaces ``path`` once it is complete; missing folders are created.

    The data goes to a hidden file beside the path, which is renamed once it is on the disk. A link at the path is
    replaced, not followed. ``times`` are those of the last access and the last change in ns; None means now.
    An error of writing becomes an OutputError; other errors of the caller's block pass unchanged, also its OSError.
    """
    part = part_of(path)
    try:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = _Part(part, path)
        with io.BufferedRandom(raw) as file:
            yield file
            file.flush()
            with _writing(path):
                os.fsync(raw.fileno())
        with _writing(path):
            if times is not None:
                os.utime(part, ns=times)
            os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):  # renamed already, or never created
            part.unlink()


class _Part(io.FileIO):
    """The incomplete file. Its errors become an OutputError that names the output."""

    def __init__(self, part: Path, path: Path) -> None:
        super().__init__(part, "x+b")
        self._path = path

    def write(self, data: Any) -> int:
        with _writing(self._path):
            return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        with _writing(self._path):
            return super().truncate(size)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {reason_of(error)}") from error


def write_bytes(data: bytes, path: Path) -> None:
    """Write a file atomically (see ``replaced``)."""
    with replaced(path) as file:
        file.write(data)


def write_text(text: str, path: Path) -> None:
    """Write a text atomically (see ``replaced``), with the same bytes on every system."""
    write_bytes(storable(text).encode(), path)


def check_writable(path: str | Path) -> None:
    """Check before a long computation whether ``replaced`` can write here; raise an OutputError if not."""
    path = Path(path)
    part = part_of(path)
    with _writing(path):
        if path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(exist_ok=False)
        part.unlink()


def part_of(path: Path) -> Path:
    """Return a name beside the path for its incomplete file. It names the process, for ``remove_orphans``."""
    return path.with_name(f".{path.stem[:40]}.{_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}{PART}")


def remove_orphans(folders: Iterable[Path]) -> int:
    """Delete incomplete files left by dead processes of this machine; return how many there were."""
    removed = 0
    for folder in folders:
        for part in folder.glob(f".*.{_host()}.*{PART}"):
            process = part.name.split(".")[-3]
            if process.isdecimal() and not psutil.pid_exists(int(process)):
                with contextlib.suppress(OSError):
                    part.unlink()
                    removed += 1
    return removed


def _host() -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())[:20]


def reason_of(error: BaseException) -> str:
    """Return the first line of an error message; for an OSError its reason, without number and path."""
    return getattr(error, "strerror", None) or first_line(error)
