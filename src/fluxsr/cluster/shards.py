"""WebDataset shards: find images inside tar files. ``packing`` writes the results as tar files."""

from __future__ import annotations

import glob
import posixpath
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from fluxsr.cluster.items import Item, Listing, output_names
from fluxsr.cluster.storage import STATE, Storage, opened, safe, stamp_of, url_of
from fluxsr.errors import InputError
from fluxsr.imaging.formats import READABLE
from fluxsr.imaging.listing import hidden_part

STAGED = f"{STATE}/staged/"
"""Folder below the output folder for results of shards that are not packed yet."""


def listing(source: str, out: Storage, ending: str | None) -> Listing:
    """Return the images of shards: the members whose extension, from the first dot on, is an image's.

    Args:
        source: a .tar file, or a pattern for several.
        out, ending: as for ``sources.listing``.

    Raises:
        InputError: no shard matches, one is damaged, two have equal names, or an output would replace an input.
    """
    fs, pattern = opened(source)
    paths = sorted(fs.glob(pattern)) if glob.has_magic(pattern) and not fs.exists(pattern) else [pattern]
    if not paths:
        raise InputError(f"{source}: nothing matches this pattern")
    found = Listing()
    for path in paths:
        shard = posixpath.splitext(posixpath.basename(path))[0]
        url = url_of(fs, path)
        if shard in found.shards or out.url(f"{shard}.tar") == url:
            raise InputError(f"{url}: {out.url(shard + '.tar')} would replace it or another shard; choose another -o")
        found.shards[shard] = url
    with ThreadPoolExecutor(8, "shard") as threads:  # hides the latency of object stores
        for items, notes in threads.map(lambda shard: _items(shard, found.shards[shard], ending), found.shards):
            found.items += items
            found.notes += notes
    if not found.items:
        raise InputError(f"{source}: no image in these shards (endings looked for: {' '.join(READABLE)})")
    return found


def _items(shard: str, url: str, ending: str | None) -> tuple[list[Item], list[str]]:
    fs, path = opened(url)
    try:
        state = stamp_of(fs.info(path))
        with tar_of(fs, path) as tar:
            members = {entry.name: entry for entry in tar if entry.isreg()}
    except FileNotFoundError as error:
        raise InputError(f"{url} does not exist") from error
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{url} is damaged or not a tar file: {error}") from error
    images = [name for name in members if is_image(name)]
    for name in images:
        if not safe(name):
            raise InputError(f"{url}: the member '{name}' would be written outside the output folder; rename it")
    names, notes = output_names([(f"{shard}/{name}", name) for name in images], ending)
    return [
        Item(f"{shard}/{output}", url, state, name, members[name].offset_data, members[name].size)
        for name, output in zip(images, names, strict=True)
    ], notes


def is_image(member: str) -> bool:
    """Return whether a member is an image to upscale: 7.jpg is one; 7.mask.png, 7.json and hidden files are not."""
    _, dot, ending = posixpath.basename(member).partition(".")
    return dot + ending.lower() in READABLE and not hidden_part(member)


@contextmanager
def tar_of(fs: Any, path: str) -> Iterator[tarfile.TarFile]:
    """Open an uncompressed tar file for random access."""
    with fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        yield tar
