"""List the images of a batch from a folder, a manifest, or WebDataset shards, without reading pixels."""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fluxsr.cluster import manifest, shards
from fluxsr.cluster.items import Item, Listing, output_names
from fluxsr.cluster.storage import Storage, stamp_of
from fluxsr.errors import InputError
from fluxsr.imaging.formats import READABLE
from fluxsr.imaging.listing import PassedOver, hidden_part, images_below
from fluxsr.processing import inputs
from fluxsr.processing.inputs import Found


def listing(
    source: str,
    out: Storage,
    *,
    ending: str | None = None,
    suffix: str = "",
    columns: tuple[str, str] = ("", ""),
    own: Callable[[str], bool] = lambda name: False,
) -> Listing:
    """Return the images of a source with the names of their outputs.

    Names are those of ``fluxsr upscale``: they follow the inputs, and inputs whose outputs would collide keep their
    extension as part of the name.

    Args:
        source: folder or prefix, manifest (.csv or .parquet), or shards (.tar, or a pattern that ends with it).
        out: the output folder, which is not searched for inputs.
        ending: file name extension of the outputs, with its dot; None keeps each input's.
        suffix: text between name and extension.
        columns: columns of a manifest with paths and with names of outputs; empty uses the default columns.
        own: whether a name below ``out`` is a result of an earlier run, which is not an input.

    Raises:
        InputError: the source has no images or cannot be used.
    """
    kind = posixpath.splitext(source)[1].lower()
    if kind in (".gz", ".bz2", ".xz", ".zst", ".tgz"):
        raise InputError(f"{source} is compressed; unpack it to a .tar, which allows random access to its images")
    if kind == ".tar":
        if suffix:
            raise InputError(f"--suffix is '{suffix}', but shards keep their keys; leave it out")
        return shards.listing(source, out, ending)
    if kind in manifest.ENDINGS:
        return manifest.listing(source, out, ending, suffix, columns)
    if any(columns):
        raise InputError(f"{source} is not a manifest, but --column is for manifests; name a .csv or .parquet file")
    if glob.has_magic(source) and not Path(source).is_dir():
        raise InputError(f"{source}: patterns are for shards (*.tar); name a folder, or list the files in a manifest")
    return _folder(source, out, ending, suffix, own)


def with_masks(found: Listing, source: str, mask: Path) -> Listing:
    """Return the listing of a local folder with the masks of its images, found as by ``fluxsr upscale``.

    Raises:
        InputError: the source is no local folder, or the masks do not fit it.
    """
    folder = Storage(source)
    if not (folder.local and Path(folder.root).is_dir()):
        raise InputError(f"{source} is no folder of this machine, which --mask needs; copy it, or leave --mask out")
    items = {Path(item.source): item for item in found.items}
    root = Path(folder.root)
    entries = [Found(path, path.relative_to(root), named=False, folder=root) for path in items]
    entries, masks = inputs.with_masks(mask.absolute(), entries, found.notes)
    found.items = [items[entry.path] for entry in entries]
    for number, item in enumerate(found.items):
        if path := masks.get(Path(item.source)):
            stamp = f"{item.stamp} {stamp_of(folder.fs.info(str(path)))}"
            found.items[number] = replace(item, mask=str(path), stamp=stamp)
    return found


def _folder(source: str, out: Storage, ending: str | None, suffix: str, own: Callable[[str], bool]) -> Listing:
    folder = Storage(source)
    if folder.url() == out.url():
        raise InputError(f"{source} is both input and output; choose another -o")
    if folder.fs.isfile(folder.root):
        raise InputError(f"{source} is a file; name a folder, a manifest (.csv, .parquet) or shards (.tar)")
    passed = PassedOver()
    found = _local(folder, out, passed) if folder.local else _stored(folder, out, passed)
    results = dict.fromkeys(name for name in found if own(folder.url(name).removeprefix(out.url() + "/")))
    images = {name: info for name, info in found.items() if name not in results}
    if not images:
        if not folder.fs.exists(folder.root):
            raise InputError(f"{source} does not exist")
        tars = passed.endings[".tar"]
        there = f"; it holds {tars} shards, which '{source.rstrip('/')}/*.tar' names" if tars else ""
        there += f"; {len(results)} results of earlier runs are no inputs" if results else ""
        raise InputError(f"{source}: no image in this folder (endings looked for: {' '.join(READABLE)}){there}")
    names, notes = output_names([(image, image) for image in images], ending, suffix)
    items = [
        Item(name, folder.url(image), stamp_of(info)) for name, (image, info) in zip(names, images.items(), strict=True)
    ]
    if results:
        notes.append(f"{len(results)} results of earlier runs are left out, such as {folder.url(next(iter(results)))}")
    return Listing(items, notes=notes, passed=passed).checked(out)


def _local(folder: Storage, out: Storage, passed: PassedOver) -> dict[str, dict[str, Any]]:
    """Return the images of a local folder, found as by ``fluxsr upscale``, with their file information."""
    leave_out = Path(out.root).resolve() if out.local else None
    paths = images_below(Path(folder.root), READABLE, passed, leave_out)
    return {path.relative_to(folder.root).as_posix(): folder.fs.info(str(path)) for path in paths}


def _stored(folder: Storage, out: Storage, passed: PassedOver) -> dict[str, dict[str, Any]]:
    inside = out.url().removeprefix(folder.url() + "/") + "/"  # the output folder, if it is below the input folder
    found, hidden = dict[str, dict[str, Any]](), dict[str, None]()
    for name, info in sorted(folder.find().items()):
        ending = posixpath.splitext(name)[1].lower()
        if name.startswith(inside):
            continue
        if first := hidden_part(name):
            hidden[folder.url(first)] = None
        elif ending not in READABLE:
            passed.endings[ending] += 1
        else:
            found[name] = info
    for url in hidden:
        passed.hide(url)
    return found
