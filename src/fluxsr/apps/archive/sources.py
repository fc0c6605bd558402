"""Where a batch's images come from: a folder, a manifest, or WebDataset shards; no pixel is read."""

from __future__ import annotations

import glob
import posixpath
from pathlib import Path

from fluxsr.apps.archive import manifest, shards
from fluxsr.apps.archive.items import Item, Listing
from fluxsr.apps.archive.naming import checked, named
from fluxsr.apps.archive.places import Place, stamp_of
from fluxsr.errors import InputError
from fluxsr.imaging.formats import READABLE


def listing(
    source: str, out: Place, *, ending: str | None = None, suffix: str = "", columns: tuple[str, str] = ("", "")
) -> Listing:
    """The images of a source, and the names of their outputs.

    Names are those of ``fluxsr upscale``: a folder's are kept, and where two would be one, endings go into them.

    Args:
        source: folder or prefix; manifest (.csv or .parquet); shards (.tar, or a pattern that ends so).
        out: where outputs go; what lies below it is no input.
        ending: of the outputs, with its dot; None follows each input.
        suffix: put between name and ending.
        columns: of a manifest, for paths and for names of outputs; empty takes those of the usual names.

    Raises:
        InputError: nothing to do, or something that cannot be.
    """
    kind = posixpath.splitext(source)[1].lower()
    if kind in (".gz", ".bz2", ".xz", ".zst", ".tgz"):
        raise InputError(f"{source} is compressed; unpack it to a .tar, in which images can be reached one by one")
    if kind == ".tar":
        if suffix:
            raise InputError(f"--suffix is '{suffix}', but shards keep their keys; leave it out")
        return shards.listing(source, out, ending)
    if kind in manifest.ENDINGS:
        return manifest.listing(source, out, ending, suffix, columns)
    if any(columns):
        raise InputError(f"{source} is no manifest, which --column is for; name a .csv or .parquet file")
    if glob.has_magic(source) and not Path(source).is_dir():
        raise InputError(f"{source}: patterns are for shards (*.tar); name a folder, or list the files in a manifest")
    return _folder(source, out, ending, suffix)


def _folder(source: str, out: Place, ending: str | None, suffix: str) -> Listing:
    place = Place(source)
    if place.url() == out.url():
        raise InputError(f"{source} is input and output; choose another -o")
    if place.fs.isfile(place.root):
        raise InputError(f"{source} is a file; name a folder, a manifest (.csv, .parquet) or shards (.tar)")
    inside = out.url().removeprefix(place.url() + "/") + "/"  # where the outputs lie among the inputs
    files = place.find()
    images = {name: info for name, info in sorted(files.items()) if _wanted(name) and not name.startswith(inside)}
    if not images:
        if not place.fs.exists(place.root):
            raise InputError(f"{source} does not exist")
        tars = sum(name.endswith(".tar") for name in files)
        there = f"; it holds {tars} shards, which '{source.rstrip('/')}/*.tar' names" if tars else ""
        raise InputError(f"{source}: no image in this folder (endings looked for: {' '.join(READABLE)}){there}")
    names, notes = named([(image, image) for image in images], ending, suffix)
    items = [
        Item(name, place.url(image), stamp_of(info)) for name, (image, info) in zip(names, images.items(), strict=True)
    ]
    return checked(Listing(items, notes=notes), out)


def _wanted(name: str) -> bool:
    path = posixpath.basename(name)
    return posixpath.splitext(path)[1].lower() in READABLE and not path.startswith(".")
