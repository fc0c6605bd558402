"""Folders and prefixes of stores, by fsspec: listed, read, and written in whole files."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

from fluxsr.errors import InputError, OutputError
from fluxsr.imaging.atomic import replaced

STATE = ".fluxsr-batch"
"""Below an output place: what a run keeps for the next one."""


_WORK = f"{STATE}/work"


class Full(OutputError):
    """An output place that takes nothing more: no other image could be written either."""


def opened(url: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it.

    Raises:
        InputError: a protocol that is not known, or whose package is not installed.
    """
    import fsspec
    from fsspec.core import url_to_fs

    if "://" not in url:  # fsspec would take a name with :: for a chain of stores
        return fsspec.filesystem("file"), Path(url).expanduser().absolute().as_posix()
    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        raise InputError(f"{url}: a package for {url.partition('://')[0]}:// is not installed ({error})") from error
    except ValueError as error:
        raise InputError(f"{url}: {error}") from error
    return fs, str(path)


def url_of(fs: Any, path: str) -> str:
    """A path of a file system as reports show it and ``opened`` takes it: a URL, or on this machine a plain path."""
    return path if is_local(fs) else str(fs.unstrip_protocol(path))


def is_local(fs: Any) -> bool:
    """Whether a file system is that of this machine, with what is mounted in it."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def stamp_of(info: dict[str, Any]) -> str:
    """The state of a file as its store tells it: changes when the file does."""
    version = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("created")
    return f"{info.get('size')} {version}"


def safe(name: str) -> bool:
    """Whether a name stays below the folder it is put into, and out of what a run keeps there."""
    path = PurePosixPath(name)
    windows = "\\" in name or ":" in path.parts[0] if path.parts else True
    return not (windows or path.is_absolute() or ".." in path.parts or path.parts[0] == STATE or "\0" in name)


class Storage:
    """A folder, or a prefix of a store.

    Args:
        url: a path, or a URL such as s3://bucket/prefix.

    Attributes:
        local: whether it is a folder of this machine, or one that is mounted.
    """

    def __init__(self, url: str) -> None:
        self.fs, root = opened(url)
        self.root = root.rstrip("/") or "/"
        self.local = is_local(self.fs)

    def at(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def url(self, name: str = "") -> str:
        return url_of(self.fs, self.at(name))

    def size(self, name: str) -> int | None:
        """Of a file, in bytes; None where there is none."""
        self.fs.invalidate_cache()
        try:
            return int(self.fs.info(self.at(name))["size"])
        except FileNotFoundError:
            return None

    def find(self, below: str = "") -> dict[str, dict[str, Any]]:
        """All files below, by their name below the place; none where it is not there."""
        self.fs.invalidate_cache()
        top = self.root.rstrip("/") + "/"
        try:
            found = self.fs.find(self.at(below), detail=True)
        except FileNotFoundError:
            return {}
        return {path.removeprefix(top): info for path, info in found.items() if path.startswith(top)}

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The bytes of several files, those of them that are there."""

        def data(name: str) -> bytes | None:
            try:
                return bytes(self.fs.cat_file(self.at(name)))
            except FileNotFoundError:
                return None

        with ThreadPoolExecutor(8, "read") as threads:  # a store answers each in its own time
            found = {name: threads.submit(data, name) for name in names}
            return {name: one for name, task in found.items() if (one := task.result()) is not None}

    def write(self, name: str, data: bytes) -> None:
        """Write a file in one piece.

        Raises:
            OutputError: the disk or the store does not take it.
        """
        if self.local:
            with replaced(Path(self.at(name))) as file:
                file.write(data)
            return
        with self._write_errors(name):
            self.fs.pipe_file(self.at(name), data)

    def check_writable(self) -> None:
        """Find out before the work whether anything can be written.

        Raises:
            OutputError: it cannot.
        """
        probe = f"{STATE}/probe-{uuid.uuid4().hex[:8]}"
        self.write(probe, b"")
        self.remove([probe])

    def put(self, source: Path, name: str) -> None:
        """Move a file of this machine here; it appears in one piece.

        Raises:
            OutputError: the disk or the store does not take it, or a link leads out of the place.
        """
        with self._write_errors(name):
            if not self.local:
                self.fs.put_file(str(source), self.at(name))
                return
            target = Path(self.at(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(Path(self.root).resolve()):
                raise OutputError(f"{target}: its output folder is a link out of {self.root}; remove it")
            os.replace(source, target)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is not there does not matter."""

        def gone(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(self.at(name))

        with ThreadPoolExecutor(8, "remove") as threads:
            list(threads.map(gone, names))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of this machine for unfinished files, from which ``put`` is a rename where that can be."""
        if not self.local:
            with tempfile.TemporaryDirectory(prefix="fluxsr-") as name:
                yield Path(name)
            return
        folder = Path(self.at(f"{_WORK}/{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"))
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"{self.root} cannot be written: {error.strerror}") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def clear_scratch(self) -> None:
        """Remove scratch folders of processes that are no more, as far as can be told: this machine's, or a day old."""
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
