"""Run ``fluxsr batch``: list the images, upscale them on a cluster, pack shards and write the report."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from fluxsr.cluster import sources
from fluxsr.cluster.cluster import Cluster, connected
from fluxsr.cluster.dispatch import Dispatch
from fluxsr.cluster.items import Item, Listing
from fluxsr.cluster.packing import Packing
from fluxsr.cluster.report import DONE, FAILED, KEPT, OUTDATED, REPORT, TODO, Report, Row, blank
from fluxsr.cluster.settings import BatchOptions, Size
from fluxsr.cluster.storage import Storage
from fluxsr.cluster.worker import Worker
from fluxsr.errors import InputError
from fluxsr.names import printable
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing import upscale_file
from fluxsr.processing.reporting import summary, terminal
from fluxsr.progress import progress
from fluxsr.training.stopping import stop_flag

_TELL = 60.0  # seconds between progress messages without a terminal


def run(
    source: str,
    output: str,
    model: ModelOptions,
    options: UpscaleOptions,
    batch: BatchOptions,
    size: Size,
    *,
    mask: Path | None = None,
    overwrite: bool = False,
) -> bool:
    """Run a batch. Return whether no image failed, in this run or before.

    The first SIGINT or SIGTERM finishes the images in progress and then stops. The second one stops at once.

    Raises:
        FluxSRError: the batch cannot start or cannot continue.
        KeyboardInterrupt: the batch was stopped.
    """
    out = Storage(output)
    # Workers of a remote cluster choose their number format themselves; those on this machine get the driver's choice.
    model = model if size.address else upscale_file.with_dtype(model)
    report = Report(out, upscale_file.settings_of(model, options, here=size.address is None))
    found = sources.listing(
        source,
        out,
        ending=f".{options.format}" if options.format else None,
        suffix=options.suffix,
        columns=(batch.column, batch.output_column),
        own=report.made_here,
    )
    found = sources.with_masks(found, source, mask) if mask else found
    work = _Batch(report, found, overwrite, batch.retry_failed)
    with stop_flag() as stop:
        try:
            if work.todo or work.packing.waiting():
                out.check_writable()
                out.clear_scratch()
                with connected(size) as cluster:
                    dispatcher = Dispatch(
                        cluster,
                        lambda: cluster.start_worker(
                            Worker, model, options, out.url(), threads=cluster.cpus, measure=batch.measure
                        ),
                        report.fingerprint,
                        attempts=batch.attempts,
                        timeout=batch.timeout,
                        tell=work.tell,
                    )
                    work.upscale(cluster, dispatcher, stop)
        finally:
            work.finish()
        if stop.is_set():
            raise KeyboardInterrupt
    return not work.counts[FAILED] + work.before[FAILED]


class _Batch:
    def __init__(self, report: Report, found: Listing, overwrite: bool, retry_failed: bool) -> None:
        self.report, self.found, self.overwrite, self.retry_failed = report, found, overwrite, retry_failed
        self.console: Console = terminal()
        self.counts: Counter[str] = Counter()  # images of this run, by status
        self.before: Counter[str] = Counter()  # images of earlier runs that are not upscaled again, by status
        self._check_shards()
        todo = [item for item in found.items if self._is_to_do(item)]
        self.todo = [replace(item, again=overwrite or report.knows(item)) for item in todo]
        self.packing = Packing(found, report, self.todo)
        for note in found.notes:
            self.tell(f"note: {note}")
        if self.before[OUTDATED]:
            self.tell(f"note: {self.before[OUTDATED]} have changed settings or inputs and are upscaled again")

    def tell(self, line: str) -> None:
        """Print one line to the user."""
        self.console.print(printable(line))

    def _check_shards(self) -> None:
        """Check that no output shard replaces one that no earlier run packed."""
        ours = {item.shard for item in self.found.items if self.report.knows(item)}
        for shard in self.found.shards:
            if self.report.packed(shard) and shard not in ours and not self.overwrite:
                url = self.report.out.url(f"{shard}.tar")
                raise InputError(f"{url} exists but is not in the report; choose another -o, or --overwrite")

    def _is_to_do(self, item: Item) -> bool:
        status = self.report.status(item)
        if status == KEPT and not self.report.knows(item) and not self.overwrite:
            self.report.add({**blank(item, ""), "status": KEPT, "attempts": 0})
        again = self.overwrite or (status == FAILED and self.retry_failed)
        self.before[status] += not again
        return again or status in (TODO, OUTDATED)

    def upscale(self, cluster: Cluster, dispatcher: Dispatch, stop: threading.Event) -> None:
        """Upscale all images that need it, and add the results to the report."""
        begun = shown = time.monotonic()
        with progress(self.console, disable=not self.console.is_terminal, transient=True) as bar:
            task = bar.add_task("upscale", total=len(self.todo))
            for shard in self.packing.waiting():
                self.packing.begin(cluster, shard)
            for number, row in enumerate(dispatcher.results(self.todo, stop), 1):
                self._add(row)
                self.packing.follow(cluster, row["output"])
                bar.update(task, completed=number)
                now = time.monotonic()
                if bar.disable and now - shown > _TELL:
                    minutes = (now - begun) / number * (len(self.todo) - number) / 60
                    self.tell(f"{number} of {len(self.todo)}, about {minutes:.0f} minutes left")
                    shown = now
            self.packing.end(cluster)

    def _add(self, row: Row) -> None:
        self.report.add(row)
        self.counts[row["status"]] += 1
        if row["status"] == FAILED:
            self.tell(f"error: {row['error']}")
        if row["notes"]:
            self.tell(f"note: {row['input']} {row['notes']}")

    def finish(self) -> None:
        """Publish the report and print a summary."""
        rows = self.report.publish()
        line = summary(
            f"{self.counts[DONE]} upscaled",
            skipped=self.before[DONE] + self.before[KEPT],
            failed=self.counts[FAILED],
            failed_before=self.before[FAILED],
            left=len(self.todo) - self.counts.total(),
        )
        self.tell(f"{line}; {rows} rows in {self.report.out.url(REPORT)}")
        if self.found.passed.line():
            self.tell(self.found.passed.line())
