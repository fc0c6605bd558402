"""Peak memory of a large result: from file to file through the command line's road, the model a stub.

python benchmarks/big_picture.py --side 5000 --format png   # 20,000 x 20,000 at x4
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fluxsr.apps import batch
from fluxsr.apps.jobs import Job
from fluxsr.imaging import bands, resize, tiles


class Stub:
    """The rows of a pipeline whose model gives back what it gets."""

    transformer = vae = SimpleNamespace(parameters=list, dtype=torch.float32)

    def rows(
        self, lr: Tensor, scale: float, tile_overlap: int, color_fix: str, progress: Any, **_: Any
    ) -> tuple[tuple[int, int], Iterator[Tensor]]:
        size = resize.scaled_size(lr.shape[-2], lr.shape[-1], scale)
        tiling = tiles.grid(*size, 512, tile_overlap)
        return size, bands.enlarged(lr, size, lambda tile: tile, tiling, color_fix=color_fix, progress=progress)


def peak() -> float:
    """Megabytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Enlarge one picture and print size, time and memory."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--side", type=int, default=5000, help="of the input, in pixels")
    arguments.add_argument("--format", default="png", choices=["png", "tif"])
    options = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder, "in.jpg"), Path(folder, f"out.{options.format}"))
        ramp = np.linspace(0, 255, options.side, dtype=np.float32)
        Image.fromarray(np.add.outer(ramp, ramp).astype(np.uint16).astype(np.uint8)).convert("RGB").save(job.source)
        settings, start = batch.Options(), time.perf_counter()
        print(f"at the beginning: {peak():.0f} MB")
        picture = batch.read(job, settings)
        print(f"input read, {options.side} x {options.side}: {peak():.0f} MB")
        batch.upscale(Stub(), settings, job, picture, lambda _: None)()  # type: ignore[arg-type]
        size = job.target.stat().st_size / 1e6
        print(f"{job.target.name} of {size:.0f} MB written in {time.perf_counter() - start:.0f} s: {peak():.0f} MB")
        Image.MAX_IMAGE_PIXELS = None
        with Image.open(job.target) as found:
            print(f"its size is {found.width} x {found.height}")


if __name__ == "__main__":
    main()
