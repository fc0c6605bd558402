"""Run ``fluxsr batch``: list the images, upscale them on a cluster, pack shards and write the report."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, replace

from rich.console import Console

from fluxsr.cluster import sources
from fluxsr.cluster.cluster import Cluster, Size, connected
from fluxsr.cluster.dispatch import Dispatch, Lost
from fluxsr.cluster.items import Item, Listing
from fluxsr.cluster.packing import Packing
from fluxsr.cluster.report import DONE, FAILED, KEPT, OUTDATED, REPORT, TODO, Report, Row, blank
from fluxsr.cluster.storage import Storage
from fluxsr.cluster.worker import Worker
from fluxsr.errors import InputError
from fluxsr.names import printable
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing import upscale_file
from fluxsr.progress import progress
from fluxsr.training.stopping import stop_flag

_TELL = 60.0  # seconds between progress messages without a terminal


@dataclass(frozen=True)
class Request:
    """Options of a batch.

    Attributes:
        source, out: input and output, paths or URLs.
        ending, suffix, columns: as for ``sources.listing``.
        overwrite: replace existing outputs.
        retry_failed: retry images that failed in an earlier run.
        attempts, timeout: as for ``Dispatch``.
        measure: estimate each result's quality.
    """

    source: str
    out: str
    ending: str | None = None
    suffix: str = ""
    columns: tuple[str, str] = ("", "")
    overwrite: bool = False
    retry_failed: bool = False
    attempts: int = 3
    timeout: float = 0
    measure: bool = True


def run(request: Request, model: ModelOptions, options: UpscaleOptions, size: Size) -> bool:
    """Run a batch. Return whether no image failed, in this run or before.

    The first SIGINT or SIGTERM finishes the images in progress and then stops. The second one stops at once.

    Raises:
        FluxSRError: the batch cannot start or cannot continue.
        KeyboardInterrupt: the batch was stopped.
    """
    out = Storage(request.out)
    # Workers of a remote cluster choose their number format themselves; those on this machine get the driver's choice.
    model = model if size.address else upscale_file.with_dtype(model)
    report = Report(out, upscale_file.settings_of(model, options, here=size.address is None))
    found = sources.listing(
        request.source,
        out,
        ending=request.ending,
        suffix=request.suffix,
        columns=request.columns,
        own=report.made_here,
    )
    work = _Batch(request, model, options, report, found)
    with stop_flag() as stop:
        try:
            if work.todo or work.packing.waiting():
                out.check_writable()
                out.clear_scratch()
                with connected(size) as cluster:
                    work.upscale(cluster, stop)
        finally:
            work.finish()
        if stop.is_set():
            raise KeyboardInterrupt
    return not work.counts[FAILED] + work.before[FAILED]


class _Batch:
    def __init__(
        self, request: Request, model: ModelOptions, options: UpscaleOptions, report: Report, found: Listing
    ) -> None:
        self.request, self.model, self.options, self.report, self.found = request, model, options, report, found
        self.out = report.out
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self.counts: Counter[str] = Counter()  # images of this run, by status
        self.before: Counter[str] = Counter()  # images of earlier runs that are not upscaled again, by status
        self._check_shards()
        self.todo = [item for item in found.items if self._is_to_do(item)]
        self.todo = [replace(item, again=self.report.knows(item) or request.overwrite) for item in self.todo]
        self.packing = Packing(found, self.report, self.todo)
        for note in found.notes:
            self._tell(f"note: {note}")
        if self.before[OUTDATED]:
            self._tell(f"note: {self.before[OUTDATED]} have changed settings or inputs and are upscaled again")

    def _tell(self, line: str) -> None:
        self.console.print(printable(line))

    def _check_shards(self) -> None:
        """Check that no output shard replaces one that no earlier run packed."""
        ours = {item.shard for item in self.found.items if self.report.knows(item)}
        for shard in self.found.shards:
            if self.report.packed(shard) and shard not in ours and not self.request.overwrite:
                raise InputError(
                    f"{self.out.url(shard + '.tar')} exists but is not in the report; choose another -o, or --overwrite"
                )

    def _is_to_do(self, item: Item) -> bool:
        status = self.report.status(item)
        if status == KEPT and not self.report.knows(item) and not self.request.overwrite:
            self.report.add({**blank(item, ""), "status": KEPT, "attempts": 0})
        again = self.request.overwrite or (status == FAILED and self.request.retry_failed)
        self.before[status] += not again
        return again or status in (TODO, OUTDATED)

    def upscale(self, cluster: Cluster, stop: threading.Event) -> None:
        """Upscale all images that need it, and add the results to the report."""
        arguments = (self.model, self.options, self.out.url())
        crew = Dispatch(
            cluster,
            lambda: cluster.hire(Worker, *arguments, threads=cluster.cpus, measure=self.request.measure),
            self.report.fingerprint,
            attempts=self.request.attempts,
            timeout=self.request.timeout,
            tell=self._tell,
        )
        begun = shown = time.monotonic()
        with progress(self.console, disable=not self.console.is_terminal, transient=True) as bar:
            task = bar.add_task("upscale", total=len(self.todo))
            for shard in self.packing.waiting():
                self.packing.begin(cluster, shard)
            for number, result in enumerate(crew.results(self.todo, stop), 1):
                self._take(result)
                self.packing.follow(cluster, result.item.name if isinstance(result, Lost) else result["output"])
                bar.update(task, completed=number)
                now = time.monotonic()
                if bar.disable and now - shown > _TELL:
                    minutes = (now - begun) / number * (len(self.todo) - number) / 60
                    self._tell(f"{number} of {len(self.todo)}, about {minutes:.0f} minutes left")
                    shown = now
            self.packing.end(cluster)

    def _take(self, result: Row | Lost) -> None:
        if isinstance(result, Lost):
            error = f"{result.item.label}: given up after {result.attempts} attempts; {result.reason}"
            row = blank(result.item, self.report.fingerprint(result.item))
            result = {**row, "status": FAILED, "error": error, "attempts": result.attempts}
        self.report.add(result)
        self.counts[result["status"]] += 1
        if result["status"] == FAILED:
            self._tell(f"error: {result['error']}")
        if result["notes"]:
            self._tell(f"note: {result['input']} {result['notes']}")

    def finish(self) -> None:
        """Publish the report and print a summary."""
        rows = self.report.publish()
        parts = [f"{self.counts[DONE]} upscaled"]
        if self.before[DONE] + self.before[KEPT]:
            parts.append(f"{self.before[DONE] + self.before[KEPT]} finished before (--overwrite redoes them)")
        if self.counts[FAILED]:
            parts.append(f"{self.counts[FAILED]} failed")
        if self.before[FAILED]:
            parts.append(f"{self.before[FAILED]} failed before (--retry-failed tries them again)")
        left = len(self.todo) - self.counts.total()
        if left:
            parts.append(f"{left} left")
        self._tell(f"{', '.join(parts)}; {rows} rows in {self.out.url(REPORT)}")
        if self.found.passed.line():
            self._tell(self.found.passed.line())
