"""Find input files and pair them with their outputs. Light to import, because planning comes before loading torch."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fluxsr.errors import InputError
from fluxsr.imaging.formats import READABLE
from fluxsr.imaging.listing import PassedOver, hidden_part, images_below, is_image_file
from fluxsr.processing.naming import Found, name_of, output_paths, same_file_key
from fluxsr.processing.resume import NAME, record_folder, recorded


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path
    mask: Path | None = None
    record: Path | None = None  # the folder whose ledger lists the output; None for no ledger
    label: str = ""  # name of the source in messages, if it is not its path

    @property
    def name(self) -> str:
        """Name of the source in messages."""
        return self.label or str(self.source)


@dataclass
class Plan:
    """Jobs of a run."""

    jobs: list[Job] = field(default_factory=list)  # in the order of the inputs, with unique targets
    bad: list[tuple[str, str]] = field(default_factory=list)  # (input, reason) of inputs without a job
    notes: list[str] = field(default_factory=list)  # about renamed outputs and skipped inputs
    passed: PassedOver = field(default_factory=PassedOver)  # files that the search for inputs skipped


def find(
    inputs: Iterable[str], leave_out: Path | None = None, passed: PassedOver | None = None
) -> tuple[list[Found], list[tuple[str, str]]]:
    """Expand files, folders (recursively, without hidden files) and glob patterns.

    Args:
        inputs: the arguments; an existing path is taken literally, even with a ``*`` in its name.
        leave_out: the output folder, which is not searched unless it contains the input folder or pattern.
        passed: counts skipped files.

    Returns:
        Files, each once, and (input, reason) of inputs without a file.
    """
    found: dict[str, Found] = {}
    bad: list[tuple[str, str]] = []
    passed = PassedOver() if passed is None else passed
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            entries = _below(path, _apart(leave_out, path), passed)
            reason = f"no image in this folder (endings looked for: {' '.join(READABLE)})"
        elif path.exists():
            entries, reason = [Found(path, Path(path.name), True)], ""
        else:
            wild = any(c in text for c in "*?[")
            entries = _matches(text, leave_out, passed) if wild else []
            reason = "nothing matches this pattern" if wild else "no such file or folder"
        if not entries:
            bad.append((text, reason))
        for entry in entries:
            found.setdefault(os.path.realpath(entry.path), entry)
    return list(found.values()), bad


def _apart(leave_out: Path | None, inputs: Path) -> Path | None:
    """Return the resolved folder to leave out; None if it contains the inputs."""
    root = None if leave_out is None else leave_out.resolve()
    return None if root in (inputs.resolve(), *inputs.resolve().parents) else root


def _below(folder: Path, root: Path | None, passed: PassedOver) -> list[Found]:
    return [
        Found(path, path.relative_to(folder), False, folder)
        for path in images_below(folder, READABLE, passed, root)
        if root is None or root not in path.resolve().parents
    ]


def _matches(pattern: str, leave_out: Path | None, passed: PassedOver) -> list[Found]:
    entries: list[Found] = []
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:fixed])
    root = _apart(leave_out, base)
    asked = any(hidden_part(part) for part in parts[fixed:])  # the pattern names a hidden folder
    for path in map(Path, sorted(glob.glob(pattern, recursive=True))):
        if root is not None and root in (path.resolve(), *path.resolve().parents):
            continue
        hidden = "" if asked else hidden_part(path.relative_to(base).as_posix())
        if hidden:
            if str(base / hidden) not in passed.hidden:
                passed.hide(str(base / hidden))
        elif path.is_dir():
            if "**" not in pattern:  # ** already lists the files below
                entries += _below(path, root, passed)
        elif is_image_file(path, READABLE, passed):
            entries.append(Found(path, Path(path.name), False))
    return entries


def plan(
    inputs: Sequence[str],
    output: Path | None,
    *,
    as_file: bool,
    ending: str | None = None,
    suffix: str = "",
    mask: Path | None = None,
) -> Plan:
    """Pair every input with its output.

    If several inputs would share an output, their names get their extension, then their folder, and finally a hash of
    their path: a.gif and a.png become a.gif.png and a.png.png. A file in a folder is skipped if the ledger of the
    output folder lists it, or if it has the name of another input's output, so that a second run makes the same plan.

    Args:
        inputs: files, folders, glob patterns.
        output: a folder, or a file with ``as_file``. None puts outputs beside their inputs: ``a.png`` becomes
            ``a_x4.png``, and the folder ``in`` becomes ``in_x4``, if the suffix is ``_x4``.
        as_file: whether ``output`` is the name of a single result.
        ending: file name extension of the outputs, with its dot; None keeps each input's.
        suffix: text between name and extension.
        mask: the mask of a single input, or a folder of masks by the names of the inputs. Masks are not inputs.

    Raises:
        InputError: the mask, or the folder of masks, does not fit the inputs.
    """
    passed = PassedOver()
    found, bad = find(inputs, None if as_file else output, passed)
    beside, output = output is None, output or Path()
    record = record_folder(output) if as_file else None if beside else output
    result = Plan(bad=bad, passed=passed)
    found = _without_own(found, record, result.notes)
    found, masks = with_masks(mask, found, result.notes)
    if beside:  # after the masks, which have the names that inputs have in their folder
        found = [_beside(entry, suffix) for entry in found]

    def names(entry: Found) -> list[Path]:
        return [output] if as_file else [name_of(entry, output, ending, suffix, n) for n in range(1 if beside else 4)]

    results = _earlier_results(found, None if beside else output, names)
    if results:
        path, maker = next(iter(results.items()))
        result.notes.append(
            f"{path} is taken for an earlier result of {maker} and left out"
            + (f", {len(results) - 1} more likewise" if len(results) > 1 else "")
            + "; if it is a picture of its own, choose another -o"
        )
        found = [entry for entry in found if entry.path not in results]
    targets = {entry.path: output for entry in found}
    if not as_file:
        targets, notes = output_paths(found, output, ending, suffix)
        result.notes += notes
    own = {same_file_key(entry.path): entry for entry in found}
    for entry in found:
        target = targets[entry.path]
        victim = own.get(same_file_key(target))
        if victim is not None and (victim.named or victim.path == entry.path):
            reason = f"the output {target} would replace an input; choose another -o or a --suffix"
            result.bad.append((str(entry.path), reason))
            continue
        listed = record or record_folder(target)
        if entry.folder and beside:
            listed = target.parents[len(entry.path.relative_to(entry.folder).parts) - 1]
        result.jobs.append(Job(entry.path, target, masks.get(entry.path), listed))
    return result


def _beside(entry: Found, suffix: str) -> Found:
    """Return an input with the place of its output: beside the file, or in a folder beside the input folder."""
    if entry.folder is None:
        return replace(entry, inside=entry.path)
    folder = Path(os.path.abspath(entry.folder)) if entry.folder.name in ("", "..") else entry.folder
    if not folder.name:
        raise InputError(f"{folder} has no folder beside it; give an output folder with -o")
    return replace(entry, inside=folder.with_name(folder.name + suffix) / entry.inside)


def with_masks(mask: Path | None, found: list[Found], notes: list[str]) -> tuple[list[Found], dict[Path, Path]]:
    """Return the inputs that are not masks themselves, and the masks of those that have one; see ``plan``."""
    if mask:
        found = [entry for entry in found if entry.named or not _is_mask(entry, mask)]
    masks = _masks(mask, found) if mask else {}
    used = set(masks.values())
    found = [entry for entry in found if entry.named or entry.path not in used]
    if mask and len(masks) < len(found):
        notes.append(f"{len(found) - len(masks)} of {len(found)} inputs have no mask in {mask}: full strength")
    return found, masks


def _is_mask(entry: Found, mask: Path) -> bool:
    """Return whether an input is the mask, or lies in a folder of masks below the input folder."""
    path = entry.path.resolve()
    return _apart(mask, entry.folder or entry.path.parent) in (path, *path.parents)


def _masks(mask: Path, found: list[Found]) -> dict[Path, Path]:
    if not mask.is_dir():
        if len(found) > 1:
            raise InputError(f"{mask} is one mask, but there are {len(found)} inputs; give a folder of masks")
        return {entry.path: mask for entry in found}
    names: dict[str, Path] = {}
    for path in images_below(mask, READABLE):
        other = names.setdefault(_stem(path.relative_to(mask)), path)
        if other != path:
            raise InputError(f"{other} and {path} are masks for the same name; remove one of them")
    masks = {entry.path: names[name] for entry in found if (name := _stem(entry.inside)) in names}
    if found and not masks:
        raise InputError(f"no mask in {mask} has the name of an input, such as {_stem(found[0].inside)}.png")
    return masks


def _stem(path: Path) -> str:
    return path.with_suffix("").as_posix().casefold()


def _without_own(found: list[Found], record: Path | None, notes: list[str]) -> list[Found]:
    """Skip files that the ledger, or any above them, lists as results, unless the user named the very file."""
    if all(entry.named for entry in found):
        return found
    folders = {record} if record else {folder for entry in found for folder in entry.path.absolute().parents}
    results = {same_file_key(folder / name) for folder in folders for name in recorded(folder)}
    own = {entry.path: entry for entry in found if not entry.named and same_file_key(entry.path) in results}
    if own:
        notes.append(
            f"{len(own)} results of earlier runs are left out, such as {next(iter(own))}: "
            f"{(record or Path()) / NAME} lists them; "
            "choose another -o to upscale them again"
        )
    return [entry for entry in found if entry.path not in own]


def _earlier_results(
    found: Sequence[Found], output: Path | None, names: Callable[[Found], list[Path]]
) -> dict[Path, Path]:
    """Return found files that may be the output of another input, with that input.

    Without an output folder these may be named files, too, because a shell expands ``*.jpg`` to earlier results.
    """
    within = {same_file_key(entry.path): entry.path for entry in found if output is None or not entry.named}
    if output is not None:
        place = Path(same_file_key(output))
        within = {key: path for key, path in within.items() if place in (Path(key), *Path(key).parents)}
    if not within:
        return {}  # the usual case: no need to compute names for thousands of files
    makers = {
        within[key]: entry.path
        for entry in found
        for key in map(same_file_key, names(entry))
        if key in within and within[key] != entry.path
    }
    return {entry.path: makers[entry.path] for entry in found if entry.path in makers}
