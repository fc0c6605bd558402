"""What a folder's runs have made, one line each, so that a run that was killed goes on without redoing or skipping.

An output is written whole or not at all, so one that is there is finished; the ledger tells of what input and with what
settings it was made. An output without a line is left alone: a run was killed between the two, or it is not ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from fluxsr.apps.jobs import Job

NAME = ".fluxsr-runs.jsonl"


class Ledger:
    """The lines of one output folder.

    Args:
        folder: where outputs go; the ledger lies in it.
        settings: whatever decides on the pixels, as JSON can hold it.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path = folder / NAME
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self._lock = threading.Lock()
        self._made = _read(self.path)

    def outdated(self, job: Job) -> bool:
        """Whether the output was made with other settings or of another input, as far as is known."""
        made = self._made.get(self._key(job))
        return made is not None and made != self.stamp(job)

    def stamp(self, job: Job) -> str:
        """What the job's result depends on; empty where the input is gone."""
        try:
            state = job.source.stat()
        except OSError:
            return ""
        return f"{self._settings} {state.st_size} {state.st_mtime_ns} {job.source.name}"

    def note(self, job: Job, stamp: str) -> None:
        """Note that the output is there.

        Args:
            job: whose output is written.
            stamp: of before the input was read; it may have changed since.

        Raises:
            OSError: the ledger cannot be written.
        """
        line = json.dumps({"output": self._key(job), "made": stamp}) + "\n"
        with self._lock, self.path.open("a+b") as file:
            if file.tell() and not _ends_a_line(file):
                line = "\n" + line  # a killed run's last line is cut off
            file.write(line.encode())

    def _key(self, job: Job) -> str:
        return os.path.relpath(job.target, self.path.parent).replace(os.sep, "/")


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _read(path: Path) -> dict[str, str]:
    made: dict[str, str] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return made
    for line in lines:
        try:
            entry = json.loads(line)
            made[str(entry["output"])] = str(entry["made"])
        except (ValueError, TypeError, KeyError):
            continue  # the line that a killed run was writing
    return made
