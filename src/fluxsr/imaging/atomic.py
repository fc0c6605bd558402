"""Files that are there whole or not at all."""

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

from fluxsr.errors import OutputError
from fluxsr.names import storable

_END = ".part"


@contextmanager
def replaced(path: Path, times: tuple[int, int] | None = None) -> Iterator[IO[bytes]]:
    """A file to write that takes the path's place at the end; missing folders are made.

    The bytes go to a hidden neighbour that is renamed once it is on the disk. A link at the path is replaced, not
    followed.

    Args:
        path: of the output.
        times: last access and last change that it shall have, in ns; None leaves now.

    Only errors of writing are translated. Whatever else the caller's block raises, an OSError of its own among it,
    passes as it is.

    Raises:
        OutputError: what the disk has against it.
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
        with contextlib.suppress(OSError):  # gone after the rename, or never made
            part.unlink()


class _Part(io.FileIO):
    """The unfinished file; what the disk has against it is an OutputError that names the finished one."""

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
        raise OutputError(f"{path} cannot be written: {first_line(error)}") from error


def write_text(text: str, path: Path) -> None:
    """Write a text in one piece, its bytes the same on every system; as ``replaced``."""
    with replaced(path) as file:
        file.write(storable(text).encode())


def check_writable(path: str | Path) -> None:
    """Find out before the work whether ``replaced`` could write here.

    Raises:
        OutputError: a folder, or a place that cannot be written.
    """
    path = Path(path)
    part = part_of(path)
    with _writing(path):
        if path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(exist_ok=False)
        part.unlink()


def part_of(path: Path) -> Path:
    """A name beside the path for its unfinished file; it names the process, for ``remove_orphans``."""
    return path.with_name(f".{path.stem[:40]}.{_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}{_END}")


def remove_orphans(folders: Iterable[Path]) -> int:
    """Delete unfinished files of processes of this machine that are no more; how many there were."""
    removed = 0
    for folder in folders:
        for part in folder.glob(f".*.{_host()}.*{_END}"):
            process = part.name.split(".")[-3]
            if process.isdecimal() and not psutil.pid_exists(int(process)):
                with contextlib.suppress(OSError):
                    part.unlink()
                    removed += 1
    return removed


def _host() -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())[:20]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message: of an OSError its reason, without numbers and paths."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
