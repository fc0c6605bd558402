"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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

    Raises:
        OutputError: what the disk or the format has against it.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if times is not None:
            os.utime(part, ns=times)
        os.replace(part, path)
    except (OSError, ValueError, struct.error) as error:
        raise OutputError(f"{path} cannot be written: {_line(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # gone after the rename, or never made
            part.unlink()


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
    try:
        if path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(exist_ok=False)
        part.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {_line(error)}") from error


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


def _line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
