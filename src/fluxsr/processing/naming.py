"""Name the outputs of input files, so that no two of them are the same. Light to import."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fluxsr.imaging.formats import following
from fluxsr.names import raw


@dataclass(frozen=True)
class Found:
    """An input file."""

    path: Path
    inside: Path  # its path below the input folder, which the output keeps
    named: bool  # whether the user named this very file
    folder: Path | None = None  # the input folder; None for a file or a match of a pattern


def output_paths(
    found: Sequence[Found], output: Path, ending: str | None, suffix: str
) -> tuple[dict[Path, Path], list[str]]:
    """Return the output of each input, and notes on renamed outputs; see ``inputs.plan``."""
    levels = {entry.path: 0 for entry in found}
    first: dict[str, list[Found]] = {}
    for _ in range(4):
        groups: dict[str, list[Found]] = defaultdict(list)
        for entry in found:
            groups[same_file_key(name_of(entry, output, ending, suffix, levels[entry.path]))].append(entry)
        clashes = {key: group for key, group in groups.items() if len(group) > 1}
        first = first or clashes
        for entry in (entry for group in clashes.values() for entry in group):
            levels[entry.path] = min(levels[entry.path] + 1, 3)
    targets = {entry.path: name_of(entry, output, ending, suffix, levels[entry.path]) for entry in found}
    notes = [
        f"{', '.join(str(e.path) for e in group)} would share one output; "
        f"writing {', '.join(targets[e.path].name for e in group)}"
        for group in first.values()
    ]
    return targets, notes


def name_of(entry: Found, output: Path, ending: str | None, suffix: str, level: int) -> Path:
    """Return the output of an input. Higher levels tell apart inputs that would share one; see ``inputs.plan``."""
    stem = entry.path.stem if level == 0 else entry.path.name
    if level == 2:
        stem = f"{entry.path.resolve().parent.name}_{stem}"
    if level == 3:
        mark = hashlib.sha256(raw(os.path.realpath(entry.path))).hexdigest()[:8]
        stem = f"{stem}_{mark}"
    ending = following(entry.path) if ending is None else ending
    return output / entry.inside.with_name(f"{stem}{suffix}{ending}")


def same_file_key(path: Path) -> str:
    """Return a text that is equal for paths of the same file. A.png and a.png are one on Windows and macOS."""
    return os.path.realpath(path).casefold()
