"""The record of an output folder: which input and which settings each output was made from.

An output is written whole or not at all, so one that is there is finished. The record tells a later run whether it is
still what that run would make. An output that is not in the record is left alone: it is not ours, or a run was killed
between the two.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxsr.version import __version__

if TYPE_CHECKING:
    from fluxsr.processing.inputs import Job

NAME = ".fluxsr-runs.jsonl"


def fingerprint(settings: dict[str, Any]) -> str:
    """Return a mark of the settings that decide on the pixels, as JSON can hold them, and of this version of fluxsr."""
    text = json.dumps({"fluxsr": __version__, **settings}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recorded(folder: Path) -> dict[str, str]:
    """Return what the record of a folder lists: output, relative to the folder -> what it was made from."""
    made: dict[str, str] = {}
    try:
        lines = (folder / NAME).read_bytes().splitlines()
    except OSError:
        return made
    for line in lines:
        try:
            entry = json.loads(line)
            made[str(entry["output"])] = str(entry["made"])
        except (ValueError, TypeError, KeyError):
            continue  # the line that a killed run was writing
    return made


def record_folder(output: Path) -> Path:
    """Return the folder whose record lists a single output: its own, unless a folder above it has it already."""
    for folder in output.absolute().parents:
        if (folder / NAME).exists() and _key(output, folder) in recorded(folder):
            return folder
    return output.parent


class Ledger:
    """The record of one output folder.

    Args:
        folder: where outputs go; the record lies in it.
        settings: of ``fingerprint``.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path = folder / NAME
        self._settings = fingerprint(settings)
        self._lock = threading.Lock()
        self._made = recorded(folder)

    def outdated(self, job: Job) -> bool:
        """Return whether the output was made with other settings or of another input, as far as is known."""
        made = self._made.get(_key(job.target, self.path.parent))
        return made is not None and made != self.stamp(job)

    def stamp(self, job: Job) -> str:
        """Return what the job's result depends on; empty where the input is gone."""
        try:
            state = job.source.stat()
        except OSError:
            return ""
        return f"{self._settings} {state.st_size} {state.st_mtime_ns} {job.source.name}"

    def note(self, job: Job, stamp: str) -> None:
        """Note that the output is there.

        Args:
            job: whose output is written.
            stamp: taken before the input was read; it may have changed since.

        Raises:
            OSError: the record cannot be written.
        """
        line = json.dumps({"output": _key(job.target, self.path.parent), "made": stamp}) + "\n"
        with self._lock, self.path.open("a+b") as file:
            if file.tell() and not _ends_a_line(file):
                line = "\n" + line  # a killed run's last line is cut off
            file.write(line.encode())


def _key(output: Path, folder: Path) -> str:
    return os.path.relpath(output, folder).replace(os.sep, "/")


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")
