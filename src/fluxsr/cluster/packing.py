"""Pack the results of an input shard into an output shard with the same keys, once all are complete."""

from __future__ import annotations

import io
import tarfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from fluxsr.cluster.cluster import Cluster
from fluxsr.cluster.items import Item, Listing
from fluxsr.cluster.report import DONE, Report
from fluxsr.cluster.shards import STAGED, is_image, tar_of
from fluxsr.cluster.storage import Storage, opened
from fluxsr.errors import OutputError


class Packing:
    """Packing of all shards of a run. ``todo`` are the images that have no result yet."""

    def __init__(self, found: Listing, report: Report, todo: Sequence[Item]) -> None:
        self.found, self.report = found, report
        self._items: dict[str, list[Item]] = defaultdict(list)
        for item in found.items:
            self._items[item.shard].append(item)
        self._left = Counter(item.shard for item in todo)
        self._tasks: list[Any] = []

    def waiting(self) -> list[str]:
        """Return the shards whose images are complete but which are not packed yet."""
        return [shard for shard in self.found.shards if not self._left[shard] and not self.report.packed(shard)]

    def follow(self, cluster: Cluster, output: str) -> None:
        """Count an image as finished, and pack its shard after the last one."""
        shard = output.partition("/")[0]
        if shard in self.found.shards:
            self._left[shard] -= 1
            if not self._left[shard]:
                self.begin(cluster, shard)

    def begin(self, cluster: Cluster, shard: str) -> None:
        """Start to pack a shard in a separate task of the cluster."""
        done = {item.member: item.name for item in self._items[shard] if self.report.status(item) == DONE}
        task = cluster.ray.remote(pack).options(num_cpus=0)  # needs little CPU, and workers hold all
        self._tasks.append(task.remote(self.found.shards[shard], self.report.out.url(), shard, done))

    def end(self, cluster: Cluster) -> None:
        """Wait until all started shards are packed, or raise an OutputError."""
        try:
            cluster.ray.get(self._tasks)
        except cluster.ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, OutputError) else error from None


def pack(url: str, output: str, shard: str, results: dict[str, str]) -> None:
    """Write a shard's results as a shard. Files that are not images are copied, and failed images are omitted.

    The same results give the same bytes: members keep order and dates but not owners.

    Args:
        url: URL of the input shard.
        output: URL of the output folder, which holds the results, staged or in a shard that was packed earlier.
        shard: name of the shard.
        results: name of the result below the output folder, for each member that has one.

    Raises:
        OutputError: a result is missing, or the shard cannot be written.
    """
    out = Storage(output)
    fs, path = opened(url)
    earlier = tar_of(out.fs, out.at(f"{shard}.tar")) if out.size(f"{shard}.tar") is not None else nullcontext()
    with tar_of(fs, path) as source, earlier as before, out.scratch() as folder:
        with tarfile.open(folder / "packed.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for entry in source:
                name = results.get(entry.name)
                if not entry.isreg() or (name is None and is_image(entry.name)):
                    continue
                key = (name or f"{shard}/{entry.name}").removeprefix(f"{shard}/")
                data = _bytes(source, entry.name) if name is None else _result(out, before, name, key)
                packed = tarfile.TarInfo(key)
                packed.size, packed.mtime = len(data), int(entry.mtime)
                tar.addfile(packed, io.BytesIO(data))
        out.put(folder / "packed.tar", f"{shard}.tar")
    out.remove(out.find(f"{STAGED}{shard}"))


def _result(out: Storage, before: tarfile.TarFile | None, name: str, key: str) -> bytes:
    staged = out.read([f"{STAGED}{name}"])
    if staged:
        return next(iter(staged.values()))
    if before is None:
        raise OutputError(f"{out.url(STAGED + name)} is missing; run the same command with --overwrite to make it")
    return _bytes(before, key)


def _bytes(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    return file.read() if file else b""
