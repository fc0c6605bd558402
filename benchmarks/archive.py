"""Compare the images per second of ``fluxsr batch`` with those of a plain loop, in one run and in turn.

The loop reads, enlarges and writes one image after the other in this process. A worker does the same, and also
measures each result and writes its row of the report. Publishing the report is part of the time. Loop and workers
have one thread for the model each, and hold one image at a time. Starting Ray and loading models is not counted, but
printed:

    OMP_NUM_THREADS=1 python benchmarks/archive.py --images 24 --rounds 5 --json archive.json

Workers with a model on the CPU compete for the cores. With ``--stub 0.3`` a stand-in repeats pixels and sleeps, and
so leaves the CPU idle as a model on a GPU does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import interpolate

from fluxsr.cluster.cluster import Cluster, Size, connected
from fluxsr.cluster.dispatch import Dispatch
from fluxsr.cluster.items import Item
from fluxsr.cluster.report import Report
from fluxsr.cluster.sources import listing
from fluxsr.cluster.storage import Storage
from fluxsr.cluster.worker import Worker
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing import upscale_file
from fluxsr.processing.inputs import Job

SOURCE = Path(__file__).parents[1] / "examples" / "building_lr.jpg"


class Stub:
    """Stand-in model that sleeps and then repeats pixels."""

    # written into the metadata and the record of every result
    sources, adapter_config = ("stub", "none"), SimpleNamespace(strength=1.0)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def upscale_tensor(self, lr: torch.Tensor, settings: Any) -> torch.Tensor:
        """As ``FluxSRPipeline.upscale_tensor``."""
        time.sleep(self.seconds)
        return interpolate(lr, scale_factor=settings.options.scale, mode="nearest")


class Loaded(Worker):
    """Worker that loads its model before the clock starts, and may use the stand-in."""

    def __init__(self, *arguments: Any, stub: float = 0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pipeline = Stub(stub) if stub else None

    def load(self) -> tuple[str, str]:
        return ("", "") if self._pipeline else super().load()


def main() -> None:
    """Run the rounds and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=16)
    arguments.add_argument("--side", type=int, default=96, help="side of the inputs in pixels")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--no-measure", action="store_true", help="leave out the quality estimate")
    arguments.add_argument("--stub", type=float, default=0, help="seconds per image of a stand-in model")
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        specimens(folder / "in", options.images, options.side)
        result = measured(folder, options)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def specimens(folder: Path, images: int, side: int) -> None:
    """Write different pieces of one photograph."""
    folder.mkdir()
    with Image.open(SOURCE) as photograph:
        for number in range(images):
            left, top = (number * 37) % (photograph.width - side), (number * 53) % (photograph.height - side)
            photograph.crop((left, top, left + side, top + side)).save(folder / f"{number:04}.png")


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the images per second of the loop and of each number of workers, round by round."""
    pipeline: Any = Stub(options.stub) if options.stub else upscale_file.load(ModelOptions())
    items = listing(str(folder / "in"), Storage(str(folder / "any"))).items
    rates: dict[str, list[float]] = {"loop": []}
    loads: list[float] = []
    begun = time.perf_counter()
    with connected(Size(workers=max(options.workers))) as cluster:
        start = time.perf_counter() - begun
        loop(pipeline, items[:2], folder / "warm")
        for number in range(options.rounds):
            rates["loop"].append(len(items) / loop(pipeline, items, folder / f"loop{number}"))
            for workers in options.workers:
                out = folder / f"{workers}-{number}"
                seconds, load = archive(cluster, workers, items, out, measure=not options.no_measure, stub=options.stub)
                rates.setdefault(f"{workers} workers", []).append(len(items) / seconds)
                loads.append(load)
    return {
        "images": len(items),
        "side": options.side,
        "measure": not options.no_measure,
        "stub_seconds": options.stub,
        "torch": torch.__version__,
        "ray_start_seconds": start,
        "load_seconds": statistics.median(loads),
        "images_per_second": rates,
    }


def loop(pipeline: Any, items: list[Item], out: Path) -> float:
    """Return the seconds of the plain loop."""
    begun = time.perf_counter()
    for item in items:
        job = Job(Path(item.source), out / item.name)
        options = UpscaleOptions()
        upscale_file.upscale(pipeline, options, job, upscale_file.read(job, options), lambda *_: None)()
    return time.perf_counter() - begun


def archive(cluster: Cluster, workers: int, items: list[Item], out: Path, **how: Any) -> tuple[float, float]:
    """Return the seconds of a batch, and of starting its workers."""
    begun = time.perf_counter()
    actors = [
        cluster.start_worker(Loaded, ModelOptions(), UpscaleOptions(), str(out), threads=1, **how)
        for _ in range(workers)
    ]
    cluster.ray.get([actor.load.remote() for actor in actors])
    load, begun = time.perf_counter() - begun, time.perf_counter()
    cluster.workers = workers
    report = Report(Storage(str(out)), {})
    dispatch = Dispatch(cluster, actors.pop, report.fingerprint, tell=lambda line: None)
    for row in dispatch.results(items, threading.Event()):
        if row["status"] != "done":
            raise SystemExit(f"not done: {row}")
        report.add(row)
    report.publish()
    return time.perf_counter() - begun, load


def table(result: dict[str, Any]) -> str:
    """Return a table of the medians over the rounds, and of the ratios to the loop."""
    rates = result["images_per_second"]
    lines = ["| way | images per second | of the loop |", "| --- | --- | --- |"]
    for name, values in rates.items():
        ratio = statistics.median(value / base for value, base in zip(values, rates["loop"], strict=True))
        lines.append(f"| {name} | {statistics.median(values):.2f} | {ratio:.2f} |")
    starts = f"Ray's start {result['ray_start_seconds']:.1f} s, workers' start {result['load_seconds']:.1f} s"
    return "\n".join([*lines, f"{result['images']} images of {result['side']} px; not counted: {starts}"])


if __name__ == "__main__":
    main()
