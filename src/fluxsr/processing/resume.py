"""Ledger of an output folder: the input and the settings from which each output was made.

Outputs are written atomically, so an output that exists is complete. The ledger tells a later run whether it is still
up to date. An output that is not in the ledger is left alone, because another program may have made it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxsr.version import __version__

if TYPE_CHECKING:
    from fluxsr.processing.inputs import Job

NAME = ".fluxsr-runs.jsonl"


def fingerprint(settings: dict[str, Any]) -> str:
    """Return a hash of the settings that change pixels (JSON values), and of this version of fluxsr."""
    text = json.dumps({"fluxsr": __version__, **settings}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recorded(folder: Path) -> dict[str, str]:
    """Return the fingerprints in a folder's ledger by the path of the output relative to the folder."""
    made: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in (folder / NAME).read_bytes().splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):  # a line that a killed run has cut off
                entry = json.loads(line)
                made[str(entry["output"])] = str(entry["made"])
    return made


def record_folder(output: Path) -> Path:
    """Return the folder whose ledger lists a single output: its own, unless a folder above it lists it already."""
    for folder in output.absolute().parents:
        if (folder / NAME).exists() and _key(output, folder) in recorded(folder):
            return folder
    return output.parent


class Ledger:
    """Ledger of one output folder.

    Args:
        folder: the output folder, in which the ledger lies.
        settings: settings for ``fingerprint``.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path = folder / NAME
        self._settings = fingerprint(settings)
        self._lock = threading.Lock()
        self._made = recorded(folder)

    def outdated(self, job: Job) -> bool:
        """Return whether the output is known to be made with other settings or from another input."""
        made = self._made.get(_key(job.target, self.path.parent))
        return made is not None and made != self.stamp(job)

    def stamp(self, job: Job) -> str:
        """Return everything that the job's result depends on; empty if a file is gone."""
        try:
            files = [path.stat() for path in (job.source, job.mask) if path]
            states = [f"{state.st_size} {state.st_mtime_ns}" for state in files]
        except OSError:
            return ""
        return " ".join([self._settings, *states, job.source.name])

    def note(self, job: Job, stamp: str, notes: Sequence[str] = ()) -> None:
        """Record that the output is written.

        Args:
            job: the job.
            stamp: ``stamp`` from before the input was read, because the input may have changed since.
            notes: remarks on the output, for people who read the ledger.

        Raises:
            OSError: the ledger cannot be written.
        """
        entry = {"output": _key(job.target, self.path.parent), "made": stamp}
        line = json.dumps({**entry, "notes": [*notes]} if notes else entry)
        with self._lock, self.path.open("ab") as file:
            file.write(f"\n{line}".encode())  # break first: a killed run may have cut off the last line


def _key(output: Path, folder: Path) -> str:
    return os.path.relpath(output, folder).replace(os.sep, "/")
