"""Measure the seconds and the peak memory of one image, each case in its own process.

    python benchmarks/speed.py [--model bundled] [--device cpu] [--sizes 512 1024 4096]

Seconds are the median of --runs calls after one warm-up call, or those of the first call with --runs 1. Images larger
than --timed-side run once, for their memory. Memory is the peak of the whole process, with Python and torch, and on
CUDA also the peak of torch's allocator. The row "idle" has only loaded the model. Windows cannot report the peak of a
process, so the column shows a dash there.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

DTYPES = ("fp32", "bf16")

PICTURE = Path(__file__).parents[1] / "examples" / "church_lr.jpg"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled", help="bundled, a folder, or a Hub id")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024, 4096], metavar="PX")
    parser.add_argument("--timed-side", type=int, default=1024, help="larger outputs run once")
    parser.add_argument("--runs", type=int, default=5, help="timed calls (%(default)s)")
    parser.add_argument("--tile-size", type=int, help="default: the model's own")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # a child process: the case as JSON
    return parser.parse_args(arguments)


def measure(case: dict) -> dict:
    """Load the model, upscale a synthetic image to case["side"] pixels, and report."""
    import torch
    from PIL import Image

    import fluxsr
    from fluxsr.backbones.device import peak_memory

    if case["threads"]:
        torch.set_num_threads(case["threads"])
    on_cuda = case["device"].startswith("cuda")
    pipe = fluxsr.load(case["model"], device=case["device"], dtype=case["dtype"])
    times = []
    if case["side"]:
        side = case["side"] // 4
        with Image.open(PICTURE) as photograph:  # the output guard would repair the result for noise
            image = photograph.convert("RGB").resize((side, side))
        for _ in range(case["runs"] + (case["runs"] > 1)):
            start = time.perf_counter()
            pipe(image, scale=4, tile_size=case["tile_size"])  # a PIL image: it is back on the CPU
            times.append(time.perf_counter() - start)
        times = sorted(times[1:] or times)
    return {
        **case,
        "seconds": times[len(times) // 2] if times else None,
        "resident_mib": (peak_memory(torch.device("cpu")) or 0) / 2**20 or None,
        "cuda_mib": torch.cuda.max_memory_allocated() / 2**20 if on_cuda else None,
        "torch": torch.__version__,
        "used_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if on_cuda else None,
    }


def in_fresh_process(case: dict) -> dict:
    """Peak memory never falls within a process, so each case gets one.

    Linux may count the parent's peak at the fork as the child's: this parent imports no torch.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemExit(f"error: {case['dtype']} at {case['side']} px failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def cpu_name() -> str:
    """Return the processor's model name, or what the system says instead."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cases(options: argparse.Namespace) -> list[dict]:
    shared = {
        "model": options.model,
        "device": options.device,
        "threads": options.threads,
        "tile_size": options.tile_size,
    }
    return [
        {
            **shared,
            "dtype": dtype,
            "side": side,
            "runs": options.runs if side <= options.timed_side else 1,
        }
        for dtype in options.dtypes
        for side in (0, *options.sizes)
    ]


def table(results: list[dict]) -> str:
    def cell(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    lines = [
        "| output | dtype | seconds | runs | peak resident MiB | peak CUDA MiB |",
        "|---|---|---|---|---|---|",
    ]
    for row in results:
        side = f"{row['side']}x{row['side']}" if row["side"] else "idle"
        runs = row["runs"] if row["side"] else "-"
        lines.append(
            f"| {side} | {row['dtype']} | {cell(row['seconds'], 2)} | {runs} "
            f"| {cell(row['resident_mib'], 0)} | {cell(row['cuda_mib'], 0)} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.case:
        print(json.dumps(measure(json.loads(options.case))))
        return 0
    results = []
    for case in cases(options):
        results.append(in_fresh_process(case))
        print(f"{len(results)}/{len(cases(options))} done", file=sys.stderr)
    first = results[0]
    print(
        f"model {options.model}, tiles of {options.tile_size or 'its own size'}, torch {first['torch']}, "
        f"{first['gpu'] or cpu_name()}, {first['used_threads']} threads, {platform.system()}"
    )
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
