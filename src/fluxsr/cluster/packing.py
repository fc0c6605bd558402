"""Results of a shard packed into a shard of the same keys, once all of them are there."""

from __future__ import annotations

import io
import tarfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from fluxsr.cluster.cluster import Cluster
from fluxsr.cluster.items import Item, Listing
from fluxsr.cluster.report import DONE, Report
from fluxsr.cluster.shards import STAGED, is_image, tar_of
from fluxsr.cluster.storage import Storage, opened
from fluxsr.errors import OutputError


class Packing:
    """The shards of a run.

    Args:
        found: all images.
        report: of the run; tells which have results.
        todo: images that are not done yet.
    """

    def __init__(self, found: Listing, report: Report, todo: Sequence[Item]) -> None:
        self.found, self.report = found, report
        self._items: dict[str, list[Item]] = defaultdict(list)
        for item in found.items:
            self._items[item.shard].append(item)
        self._left = Counter(item.shard for item in todo)
        self._tasks: list[Any] = []

    def waiting(self) -> list[str]:
        """Shards that an earlier run finished and did not pack."""
        return [shard for shard in self.found.shards if not self._left[shard] and not self.report.packed(shard)]

    def follow(self, cluster: Cluster, output: str) -> None:
        """An image is done, or given up; with the last of its shard that is packed."""
        shard = output.partition("/")[0]
        if shard in self.found.shards:
            self._left[shard] -= 1
            if not self._left[shard]:
                self.begin(cluster, shard)

    def begin(self, cluster: Cluster, shard: str) -> None:
        """Pack a shard somewhere, beside the workers."""
        done = {item.member: item.name for item in self._items[shard] if self.report.status(item) == DONE}
        task = cluster.ray.remote(pack).options(num_cpus=0)  # it waits for stores; workers hold all CPUs
        self._tasks.append(task.remote(self.found.shards[shard], self.report.out.url(), shard, done))

    def end(self, cluster: Cluster) -> None:
        """Wait for what was begun.

        Raises:
            OutputError: a shard cannot be written.
        """
        try:
            cluster.ray.get(self._tasks)
        except cluster.ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, OutputError) else error from None


def pack(url: str, output: str, shard: str, results: dict[str, str]) -> None:
    """Write a shard's results as a shard; what is no image is copied, and an image that failed is left out.

    The same results give the same bytes: members keep order and dates, and lose owners.

    Args:
        url: of the input shard.
        output: URL of the output folder. It holds the results, staged or in a shard that was packed earlier.
        shard: name of the shard.
        results: for each member that has a result, the name of that result below the output folder.

    Raises:
        OutputError: a result is gone, or the disk or the store does not take it.
    """
    out = Storage(output)
    fs, path = opened(url)
    with ExitStack() as held:
        source = held.enter_context(tar_of(fs, path))
        before = (
            held.enter_context(tar_of(out.fs, out.at(f"{shard}.tar"))) if out.size(f"{shard}.tar") is not None else None
        )
        target = held.enter_context(out.scratch()) / "packed.tar"
        with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
            for entry in source:
                name = results.get(entry.name)
                if not entry.isreg() or (name is None and is_image(entry.name)):
                    continue
                key = (name or f"{shard}/{entry.name}").removeprefix(f"{shard}/")
                _add(tar, key, _bytes(source, entry.name) if name is None else _result(out, before, name, key), entry)
        out.put(target, f"{shard}.tar")
    out.remove(out.find(f"{STAGED}{shard}"))


def _result(out: Storage, before: tarfile.TarFile | None, name: str, key: str) -> bytes:
    staged = out.read([f"{STAGED}{name}"])
    if staged:
        return next(iter(staged.values()))
    if before is None:
        raise OutputError(f"{out.url(STAGED + name)} is gone; the same command with --overwrite makes it again")
    return _bytes(before, key)


def _bytes(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    return file.read() if file else b""


def _add(tar: tarfile.TarFile, name: str, data: bytes, like: tarfile.TarInfo) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(data), int(like.mtime)
    tar.addfile(entry, io.BytesIO(data))
