"""Files of a folder that are taken for images, and a count of what is passed over.

Only the standard library, so that a command can plan before torch is loaded.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Folders that file servers and systems keep for themselves: thumbnails, recycle bins, snapshots.
_SERVICE = {
    *("@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "#recycle", "#snapshot", "$recycle.bin"),
    *("lost+found", "system volume information", "__macosx"),
}
_OWN = ".fluxsr-"  # records of earlier runs
_NAMED = 3  # of each kind that a summary names


@dataclass
class PassedOver:
    """What a search for images did not look at.

    Attributes:
        endings: number of files by ending, in lower case with its dot.
        hidden: hidden files and folders, and folders that systems keep for themselves.
        linked: links to folders.
        unreadable: folders that could not be listed.
        odd: what is neither a file nor a folder, such as links that lead nowhere.
    """

    endings: Counter[str] = field(default_factory=Counter)
    hidden: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def hide(self, path: str) -> None:
        """Count a hidden file or folder, unless fluxsr made it."""
        if not os.path.basename(path).startswith(_OWN):
            self.hidden.append(path)

    def line(self) -> str:
        """Return everything in one line; empty where nothing was passed over."""
        parts = [f"{count} {ending or 'without an ending'}" for ending, count in self.endings.most_common()]
        kinds = {
            "hidden": self.hidden,
            "linked folders": self.linked,
            "unreadable folders": self.unreadable,
            "neither file nor folder": self.odd,
        }
        parts += [f"{len(paths)} {kind} ({_some(paths)})" for kind, paths in kinds.items() if paths]
        return f"not looked at: {', '.join(parts)}" if parts else ""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or kept by a system for itself."""
    return (name.startswith(".") and name not in (".", "..")) or name.lower() in _SERVICE


def hidden_part(name: str) -> str:
    """Return a path up to its first hidden part; empty where no part is hidden. Parts are separated by slashes."""
    parts = name.split("/")
    return next(("/".join(parts[: n + 1]) for n, part in enumerate(parts) if is_hidden(part)), "")


def images_below(
    folder: Path, endings: Collection[str], passed: PassedOver | None = None, leave_out: Path | None = None
) -> list[Path]:
    """Return the files below a folder that have one of these endings, sorted.

    Hidden files and folders are left out, and links to folders are not followed.

    Args:
        folder: searched with all folders below it, even if its own name is hidden.
        endings: in lower case with their dots.
        passed: counts what is left out.
        leave_out: a resolved folder that is not searched, and not counted.
    """
    passed, found = PassedOver() if passed is None else passed, list[Path]()
    for place, folders, files in os.walk(folder, onerror=lambda error: passed.unreadable.append(str(error.filename))):
        searched = []
        for name in sorted(folders):
            path = os.path.join(place, name)
            if is_hidden(name):
                passed.hide(path)
            elif os.path.islink(path):
                passed.linked.append(path)
            elif leave_out is None or os.path.realpath(path) != str(leave_out):
                searched.append(name)
        folders[:] = searched
        for file in (Path(place, name) for name in sorted(files)):
            if is_hidden(file.name):  # macOS leaves ._a.jpg beside a.jpg on foreign disks
                passed.hide(str(file))
            elif is_image_file(file, endings, passed):
                found.append(file)
    return sorted(found)


def is_image_file(path: Path, endings: Collection[str], passed: PassedOver) -> bool:
    """Return whether this is a file with one of these endings; count it where it is not."""
    ending = path.suffix.lower()
    if ending not in endings:
        passed.endings[ending] += 1
    elif not path.is_file():
        passed.odd.append(str(path))
    else:
        return True
    return False


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(paths[:_NAMED]) + more
