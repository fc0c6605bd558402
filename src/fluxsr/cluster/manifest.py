"""Manifests: tables of images, as CSV or Parquet, in a file or in an object store."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluxsr.cluster.items import Item, Listing, output_names
from fluxsr.cluster.report import read_parquet
from fluxsr.cluster.storage import Storage, opened, safe, stamp_of, url_of
from fluxsr.errors import InputError, first_line
from fluxsr.imaging.formats import ENDINGS as WRITTEN
from fluxsr.imaging.formats import following

ENDINGS = (".csv", ".parquet")
_PATHS, _NAMES = "path", "output"  # default columns


def listing(source: str, out: Storage, ending: str | None, suffix: str, columns: tuple[str, str]) -> Listing:
    """Return the images of a manifest. Rows that repeat a path with the same output count once.

    Args:
        source: a .csv with column names in the first line, or a .parquet; relative paths start at its folder.
        out, ending, suffix, columns: as for ``sources.listing``.

    Raises:
        InputError: the manifest cannot be read, lacks a column, or has an invalid row.
    """
    paths, outputs = _columns(source, columns)
    fs, root = opened(source)
    folder = url_of(fs, posixpath.dirname(root))
    sources: dict[str, str] = {}  # source -> name of its output; may be empty
    for number, (path, output) in enumerate(zip(paths, outputs, strict=True), 1):
        if not path:
            raise InputError(f"{source}: row {number} has no path")
        full = path if "://" in path else posixpath.join(folder, path)
        if output and (not safe(output) or posixpath.splitext(output)[1].lower() not in WRITTEN | {"": None}):
            raise InputError(
                f"{source}: row {number}: '{output}' cannot be an output; give a name below the output folder that "
                f"ends with one of {', '.join(WRITTEN)}"
            )
        if sources.setdefault(full, output) != output:
            raise InputError(f"{source}: row {number}: {path} occurs earlier with another output; remove one row")
    if not sources:
        raise InputError(f"{source} has no rows")
    free = [path for path, output in sources.items() if not output]
    names, notes = output_names([(path, posixpath.basename(path)) for path in free], ending, suffix)
    chosen = dict(zip(free, names, strict=True))
    for path, output in sources.items():
        if output:
            chosen[path] = output if posixpath.splitext(output)[1] else output + (ending or following(Path(path)))
    twice = [name for name, count in Counter(name.casefold() for name in chosen.values()).items() if count > 1]
    if twice:  # A.png and a.png are the same file on Windows and macOS
        name = [name for name in chosen.values() if name.casefold() == twice[0]][-1]
        raise InputError(f"{source}: two images have the output {name}")
    if len(paths) > len(sources):
        notes.append(f"{source} names {len(paths) - len(sources)} images more than once; each is upscaled once")
    return Listing([_item(chosen[path], path) for path in sources], notes=notes).checked(out)


def _item(name: str, path: str) -> Item:
    if "://" in path:  # the state of each file would cost a request to the store
        return Item(name, path)
    fs, local = opened(path)
    return Item(name, local, stamp_of(fs.info(local)) if fs.exists(local) else "")


def _columns(source: str, columns: tuple[str, str]) -> tuple[list[str], list[str]]:
    wanted, outputs = columns[0] or _PATHS, columns[1] or _NAMES
    table = _table(source, (wanted, outputs))
    for name in (wanted, columns[1]):
        if name and name not in table.column_names:
            raise InputError(f"{source} has no column '{name}'; it has {', '.join(table.column_names)} (see --column)")
    paths = _texts(table, wanted)
    return paths, _texts(table, outputs) if outputs in table.column_names else [""] * len(paths)


def _texts(table: Any, column: str) -> list[str]:
    values = ("" if value is None else value for value in table.column(column).to_pylist())
    return [(os.fsdecode(value) if isinstance(value, bytes) else str(value)).strip() for value in values]


def _table(source: str, texts: Sequence[str]) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    fs, path = opened(source)
    try:
        data = fs.cat_file(path)
        if path.lower().endswith(".parquet"):
            return read_parquet(data)
        as_texts = csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.binary()))  # keeps names such as 007
        return csv.read_csv(pa.BufferReader(data), csv.ReadOptions(use_threads=False), convert_options=as_texts)
    except FileNotFoundError as error:
        raise InputError(f"{source} does not exist") from error
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source} cannot be read: {first_line(error)}") from error
