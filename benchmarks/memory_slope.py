"""Whether a long run's memory stays: resident memory over a batch of many images, and its slope.

The model is a stub that repeats pixels, so that what is measured is reading, writing and keeping books:

    python benchmarks/memory_slope.py --images 1000
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from stub_pipeline import install

FORMATS = (".png", ".jpg", ".tif", ".webp")


def main() -> None:
    """Run the batch and print the slope."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", type=int, default=1000)
    arguments.add_argument("--side", type=int, default=96, help="of the inputs, in pixels; they vary by a third")
    options = arguments.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        specimens(Path(folder, "in"), options.images, options.side)
        memory = measured(Path(folder))
    steady = memory[len(memory) // 3 :]  # before it, caches and arenas fill
    slope = float(np.polyfit(np.arange(len(steady)), steady, 1)[0])
    print(f"images: {len(memory)}, {(time.perf_counter() - start) / len(memory) * 1000:.1f} ms each")
    print(f"resident memory: {memory[0] / 1e6:.1f} MB at the first, {steady[0] / 1e6:.1f} MB after a third of them,")
    print(f"  {np.max(memory) / 1e6:.1f} MB at most, {memory[-1] / 1e6:.1f} MB at the end")
    print(f"slope over the last two thirds: {slope / 1e3:+.3f} kB an image, {slope * 1e4 / 1e6:+.1f} MB for 10,000")


def specimens(folder: Path, images: int, side: int) -> None:
    """Twelve different photographs, linked to as often as is asked for."""
    rng, kinds = np.random.default_rng(0), list[Path]()
    (folder.parent / "kinds").mkdir()
    folder.mkdir()
    for number in range(12):
        size = rng.integers(side * 2 // 3, side * 4 // 3, 2)
        kinds.append(folder.parent / "kinds" / f"{number}{FORMATS[number % 4]}")
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(kinds[-1])
    for number in range(images):
        kind = kinds[number % len(kinds)]
        os.link(kind, folder / f"{number:06}{kind.suffix}")


def measured(folder: Path) -> list[int]:
    """Resident memory in bytes at every image's work."""
    memory, process = list[int](), psutil.Process()
    install(lambda: memory.append(process.memory_info().rss))
    from fluxsr.apps.batch import Options, run
    from fluxsr.apps.jobs import plan

    report = run(plan([str(folder / "in")], folder / "out", as_file=False), Options())
    assert not report.bad, report.bad
    return memory


if __name__ == "__main__":
    main()
