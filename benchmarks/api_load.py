"""Measure a server under many clients: failures, waiting times and memory.

    python benchmarks/api_load.py --clients 50 --images 20 --json api_load.json

The script starts ``fluxsr serve`` and requests single images one after the other. Then every client fetches its
images at the same time. A client that is answered 429 tries again after ``Retry-After``. Any other answer than 200
counts as failed.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

SOURCE = Path(__file__).parents[1] / "src"


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--images", type=int, default=20, help="images per client")
    parser.add_argument("--side", type=int, default=64, help="side of an image in pixels")
    parser.add_argument("--single", type=int, default=20, help="images that are requested without other load")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("server", nargs="*", help="options of fluxsr serve, after --")
    options = parser.parse_args()
    pictures = [picture(options.side, seed) for seed in range(16)]
    with served(options.server) as (url, process):
        alone = one_by_one(url, pictures, options.single)
        with watched(process) as memory:
            crowd = asyncio.run(together(url, pictures, options.clients, options.images))
        counts = metrics(url)
    found = summary(alone, crowd, memory, counts) | {"clients": options.clients, "images": options.images}
    for name, value in found.items():
        print(f"| {name} | {value} |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if found["failed"] else 0)


def picture(side: int, seed: int) -> bytes:
    """Return a PNG of smooth noise."""
    small = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


@contextmanager
def served(arguments: list[str]) -> Iterator[tuple[str, psutil.Process]]:
    """Start a server on a free port; yield its address and its process."""
    command = [sys.executable, "-m", "fluxsr", "serve", "--port", "0", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "FLUXSR_API_KEY": ""}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            print(line.rstrip(), file=sys.stderr)
            if line.startswith("serving on "):
                break
        else:
            sys.exit("the server did not start")
        threading.Thread(target=lambda: sys.stderr.writelines(process.stderr or ()), daemon=True).start()
        yield line.split()[-1], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def one_by_one(url: str, pictures: list[bytes], count: int) -> list[float]:
    """Return the seconds of requests without other load, without the first few, in which the server warms up."""
    seconds = []
    with httpx.Client(base_url=url, timeout=600) as client:
        for number in range(count + 5):
            start = time.perf_counter()
            client.post("/v1/upscale", files={"image": pictures[number % len(pictures)]}).raise_for_status()
            seconds.append(time.perf_counter() - start)
    return seconds[5:]


@contextmanager
def watched(process: psutil.Process) -> Iterator[list[int]]:
    """Record the resident memory in bytes, five times a second."""
    memory, over = list[int](), threading.Event()

    def sample() -> None:
        while not over.wait(0.2):
            memory.append(process.memory_info().rss)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield memory
    finally:
        over.set()
        thread.join()


async def together(url: str, pictures: list[bytes], clients: int, images: int) -> dict[str, Any]:
    """Run all clients, each with its own connection; return statuses, seconds of accepted requests, and of the run."""
    statuses, seconds, dishonest = Counter[int](), list[float](), 0

    async def one(number: int) -> None:
        nonlocal dishonest
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:
            for image in range(images):
                while True:
                    start = time.perf_counter()
                    files = {"image": pictures[(number + image) % len(pictures)]}
                    answer = await client.post("/v1/upscale", files=files)
                    statuses[answer.status_code] += 1
                    if answer.status_code != 429:
                        break
                    wait = answer.headers.get("retry-after", "")
                    dishonest += not wait.isdecimal() or answer.json()["error"]["code"] != "busy"
                    await asyncio.sleep(float(wait or 1))
                if answer.status_code == 200:
                    seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(clients)))
    whole = time.perf_counter() - start
    return {"statuses": statuses, "seconds": seconds, "whole": whole, "dishonest": dishonest}


def metrics(url: str) -> dict[str, float]:
    """Return the server's own metrics."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return {line.split()[0]: float(line.split()[-1]) for line in lines if not line.startswith("#")}


def summary(
    alone: list[float], crowd: dict[str, Any], memory: list[int], counts: dict[str, float]
) -> dict[str, float | int | str]:
    """Return the figures of the table."""
    single = float(np.median(alone))
    median, late = np.percentile(crowd["seconds"], [50, 95])
    steady = memory[len(memory) // 3 :]  # before it, caches and arenas fill
    slope = float(np.polyfit(np.arange(len(steady)) / 5, steady, 1)[0])
    statuses = crowd["statuses"]
    return {
        "single image, seconds": round(single, 3),
        "answered 200": statuses[200],
        "answered 429, with Retry-After": statuses[429] - crowd["dishonest"],
        "failed": sum(statuses.values()) - statuses[200] - statuses[429] + crowd["dishonest"],
        "p50 / single": round(float(median) / single, 1),
        "p95 / single": round(float(late) / single, 1),
        "images per second * single": round(statuses[200] / crowd["whole"] * single, 2),
        "tiles per batch": round(counts["fluxsr_batch_tiles_sum"] / counts["fluxsr_batch_tiles_count"], 2),
        "batches of several requests": int(counts["fluxsr_shared_batches_total"]),
        "seconds": round(crowd["whole"], 1),
        "resident MB, begin": round(memory[0] / 1e6),
        "resident MB, tenth by tenth": ", ".join(f"{np.mean(part) / 1e6:.0f}" for part in np.array_split(memory, 10)),
        "resident MB, most": round(max(memory) / 1e6),
        "slope of the last two thirds, MB a minute": round(slope * 60 / 1e6, 2),
    }


if __name__ == "__main__":
    main()
