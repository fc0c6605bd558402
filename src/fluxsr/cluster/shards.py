"""WebDataset shards: images found inside tar files; ``packing`` makes tar files of their results."""

from __future__ import annotations

import glob
import posixpath
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from fluxsr.cluster.items import Item, Listing
from fluxsr.cluster.naming import named
from fluxsr.cluster.storage import STATE, Storage, opened, safe, stamp_of, url_of
from fluxsr.errors import InputError
from fluxsr.imaging.formats import READABLE
from fluxsr.imaging.listing import hidden_part

STAGED = f"{STATE}/staged/"
"""Below an output place: images of shards that are not packed yet."""


def listing(source: str, out: Storage, ending: str | None) -> Listing:
    """The images of shards, each a member whose whole ending, after the first dot, is an image's.

    Args:
        source: a .tar, or a pattern of them.
        out, ending: of ``sources.listing``.

    Raises:
        InputError: no shard, one that is damaged, two of one name, or one that its result would replace.
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
            raise InputError(f"{url}: {out.url(shard + '.tar')} would replace it or another; choose another -o")
        found.shards[shard] = url
    with ThreadPoolExecutor(8, "shard") as threads:  # a store answers each header in its own time
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
        raise InputError(f"{url} is damaged, or no tar file: {error}") from error
    images = [name for name in members if is_image(name)]
    for name in images:
        if not safe(name):
            raise InputError(f"{url}: '{name}' cannot be the name of an output")
    names, notes = named([(f"{shard}/{name}", name) for name in images], ending)
    return [
        Item(f"{shard}/{output}", url, state, name, members[name].offset_data, members[name].size)
        for name, output in zip(images, names, strict=True)
    ], notes


def is_image(member: str) -> bool:
    """Whether a member is one to enlarge: 7.jpg is, 7.mask.png, 7.json and what is hidden are not."""
    _, dot, ending = posixpath.basename(member).partition(".")
    return dot + ending.lower() in READABLE and not hidden_part(member)


@contextmanager
def tar_of(fs: Any, path: str) -> Iterator[tarfile.TarFile]:
    """A tar file that is not compressed, its members reached by seeking."""
    with fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        yield tar
