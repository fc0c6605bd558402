"""Storage in local folders or object stores through fsspec, with atomic writes."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import psutil

from fluxsr.errors import InputError, OutputError
from fluxsr.imaging.atomic import replaced

STATE = ".fluxsr-batch"
"""Folder below the output folder for the state that a run keeps for the next one."""

_WORK = f"{STATE}/work"
T = TypeVar("T")


class Full(OutputError):
    """Error raised when the output storage is full, so that no other image could be written either."""


def opened(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path in it.

    Raises:
        InputError: the protocol is unknown, or its package is not installed.
    """
    import fsspec
    from fsspec.core import url_to_fs

    if "://" not in url:  # fsspec would read a name with :: as a chain of URLs
        return fsspec.filesystem("file"), Path(url).expanduser().absolute().as_posix()
    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        raise InputError(f"{url}: a package for {url.partition('://')[0]}:// is not installed ({error})") from error
    except ValueError as error:
        raise InputError(f"{url}: {error}") from error
    return fs, str(path)


def url_of(fs: Any, path: str) -> str:
    """Return a path of a file system as a URL, or as a plain path if the file system is local."""
    return path if is_local(fs) else str(fs.unstrip_protocol(path))


def is_local(fs: Any) -> bool:
    """Return whether a file system is this machine's, including mounts."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def stamp_of(info: dict[str, Any]) -> str:
    """Return the size and version of a file as reported by its store. It changes when the file changes."""
    version = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("created")
    return f"{info.get('size')} {version}"


def safe(name: str) -> bool:
    """Return whether a name stays below its folder and outside the folder of a run's state."""
    path = PurePosixPath(name)
    windows = "\\" in name or ":" in path.parts[0] if path.parts else True
    return not (windows or path.is_absolute() or ".." in path.parts or path.parts[0] == STATE or "\0" in name)


class Storage:
    """A local folder or a prefix in an object store: the path ``root`` in the fsspec file system ``fs``."""

    def __init__(self, url: str) -> None:
        self.fs, root = opened(url)
        self.root = root.rstrip("/") or "/"
        self.local = is_local(self.fs)

    def at(self, name: str) -> str:
        """Return the path of a file in the file system."""
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def url(self, name: str = "") -> str:
        """Return the URL of a file, or its path if local."""
        return url_of(self.fs, self.at(name))

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None if it does not exist."""
        self.fs.invalidate_cache()
        try:
            return int(self.fs.info(self.at(name))["size"])
        except FileNotFoundError:
            return None

    def find(self, below: str = "") -> dict[str, dict[str, Any]]:
        """Return information about all files below a folder by their names; an empty dict if it does not exist."""
        self.fs.invalidate_cache()
        top = self.root.rstrip("/") + "/"
        try:
            found = self.fs.find(self.at(below), detail=True)
        except FileNotFoundError:
            return {}
        return {path.removeprefix(top): info for path, info in found.items() if path.startswith(top)}

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of several files by name, without files that do not exist."""
        return self._for_each(lambda path: bytes(self.fs.cat_file(path)), names)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files and ignore those that do not exist."""
        self._for_each(self.fs.rm_file, names)

    def _for_each(self, work: Callable[[str], T], names: Iterable[str]) -> dict[str, T]:
        """Call a function for the path of each file, in threads to hide the latency of object stores."""
        with ThreadPoolExecutor(8, "storage") as threads:
            tasks = {name: threads.submit(work, self.at(name)) for name in names}
        return {
            name: task.result() for name, task in tasks.items() if not isinstance(task.exception(), FileNotFoundError)
        }

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically, or raise an OutputError."""
        if self.local:
            with replaced(Path(self.at(name))) as file:
                file.write(data)
            return
        with self._write_errors(name):
            self.fs.pipe_file(self.at(name), data)

    def check_writable(self) -> None:
        """Check before the work starts that files can be written, or raise an OutputError."""
        probe = f"{STATE}/probe-{socket.gethostname()}.{os.getpid()}"
        self.write(probe, b"")
        self.remove([probe])

    def put(self, source: Path, name: str) -> None:
        """Move a local file into the storage atomically, or raise an OutputError. Links out of the root are refused."""
        with self._write_errors(name):
            if not self.local:
                self.fs.put_file(str(source), self.at(name))
                return
            target = Path(self.at(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(Path(self.root).resolve()):
                raise OutputError(f"{target}: its output folder is a link out of {self.root}; remove it")
            os.replace(source, target)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a local folder for unfinished files. In a local storage, ``put`` from it is a rename."""
        below = self.at(_WORK) if self.local else None
        with self._write_errors(_WORK):
            if below:
                os.makedirs(below, exist_ok=True)
            prefix = f"{socket.gethostname()}.{os.getpid()}."
            folder = tempfile.TemporaryDirectory(prefix=prefix, dir=below, ignore_cleanup_errors=True)
        with folder as name:
            yield Path(name)

    def clear_scratch(self) -> None:
        """Remove scratch folders of dead processes of this machine, and those of other machines after a day."""
        for folder in Path(self.at(_WORK)).glob("*.*.*") if self.local else ():
            host, process, _ = folder.name.rsplit(".", 2)
            here = host == socket.gethostname() and process.isdecimal()
            with contextlib.suppress(OSError):
                if not psutil.pid_exists(int(process)) if here else time.time() - folder.stat().st_mtime > 86400:
                    shutil.rmtree(folder)

    @contextmanager
    def _write_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.url(name)} cannot be written: {error.strerror or error}") from error
