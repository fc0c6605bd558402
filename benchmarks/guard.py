"""Measure the output guard: which broken tiles it notices, how often it errs on good ones, and what it costs.

    python benchmarks/guard.py FOLDER... [--every 4] [--crop 128] [--model bundled] [--device cpu]

The model upscales the centre of every --every-th picture of each folder. Its own tiles are the good ones: each of them
that is reported is a false alarm. Then every tile is broken in each of the ways below. The cost is the median time of
a check, divided by the median time of the model's step on the same tile in the same process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import fluxsr
from fluxsr.extensions import guard
from fluxsr.imaging import io
from fluxsr.imaging.formats import READABLE
from fluxsr.imaging.listing import images_below
from fluxsr.imaging.settings import Settings
from fluxsr.options import UpscaleOptions


def at(hr: Tensor, value: float, side: int) -> Tensor:
    """Return a tile with a square of one value in its middle."""
    top, left = (length // 2 - side // 2 for length in hr.shape[-2:])
    broken = hr.clone()
    broken[..., top : top + side, left : left + side] = value
    return broken


def lattice(hr: Tensor, levels: float, every: int, share: int = 1) -> Tensor:
    """Return a tile with every n-th pixel of every n-th row brighter; ``share`` is the width of the dots."""
    rows, columns = (torch.arange(length) % every < share for length in hr.shape[-2:])
    return hr + levels / 255 * (rows[:, None] & columns)


def tinted(hr: Tensor, *levels: float) -> Tensor:
    return hr + torch.tensor(levels).view(3, 1, 1) / 255


def stretched(hr: Tensor, times: float) -> Tensor:
    mean = hr.mean((1, 2, 3), keepdim=True)
    return mean + times * (hr - mean)


FAULTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none (false alarms)": lambda hr, up: hr,
    "one pixel is NaN": lambda hr, up: at(hr, float("nan"), 1),
    "all values are infinite": lambda hr, up: hr + float("inf"),
    "black": lambda hr, up: 0 * hr,
    "grey": lambda hr, up: 0 * hr + hr.mean(),
    "black square of 32 pixels": lambda hr, up: at(hr, 0, 32),
    "brown: +40, 0, -40": lambda hr, up: tinted(hr, 40, 0, -40),
    "darker by 30": lambda hr, up: tinted(hr, -30, -30, -30),
    "the plain enlargement itself": lambda hr, up: up,
    "dots of 60, every 16 pixels": lambda hr, up: lattice(hr, 60, 16),
    "dots of 20, every 8 pixels": lambda hr, up: lattice(hr, 20, 8, 2),
    "stripes of 10, every 2 pixels": lambda hr, up: hr + 10 / 255 * (torch.arange(hr.shape[-1]) % 2),
    "noise of 60": lambda hr, up: hr + 60 / 255 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0)),
    "contrast times 2": lambda hr, up: stretched(hr, 2),
    "contrast times 3": lambda hr, up: stretched(hr, 3),
}


def tiles_of(pipe: fluxsr.FluxSRPipeline, path: Path, crop: int) -> list[tuple[Tensor, Tensor, float]]:
    """Return the tiles of a picture's centre: the model's result, its input, and the seconds of the step."""
    found = []

    def step(lr_up: Tensor, strength: float, *, exact: bool = False) -> Tensor:
        start = time.perf_counter()
        hr = pipe.one_step(lr_up, strength)
        if hr.is_cuda:
            torch.cuda.synchronize()
        found.append((hr, lr_up.to(hr), time.perf_counter() - start))
        return hr

    lr = io.read(path).lr
    top, left = (max(0, length - crop) // 2 for length in lr.shape[-2:])
    pipe.upscale_tensor(lr[..., top : top + crop, left : left + crop], Settings(UpscaleOptions(guard=False), step=step))
    return found


def measure(pipe: fluxsr.FluxSRPipeline, folder: Path, every: int, crop: int) -> dict:
    """Return the counts of a folder by fault, the largest shares of limits of good tiles, and the seconds."""
    counts, largest = dict.fromkeys(FAULTS, 0), dict[str, float]()
    total, steps, checks = 0, [], []
    for path in images_below(folder, READABLE)[::every]:
        for hr, up, seconds in tiles_of(pipe, path, crop):
            start = time.perf_counter()
            guard.faults(hr, up)
            checks.append((time.perf_counter() - start) / len(hr))
            steps.append(seconds / len(hr))
            total += len(hr)
            for name, broken in FAULTS.items():
                counts[name] += sum(map(bool, guard.faults(broken(hr.cpu(), up.cpu()), up.cpu())))
            for name, share in guard.shares(guard.statistics(hr, up)).items():
                largest[name] = max(largest.get(name, 0.0), float(share.max()))
        print(f"{path.name}: {total} tiles so far", flush=True)
    return {"tiles": total, "counts": counts, "largest": largest, "steps": steps, "checks": checks}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="use every N-th picture (%(default)s)")
    parser.add_argument("--crop", type=int, default=128, metavar="PX", help="side of the centre (%(default)s)")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    pipe = fluxsr.load(options.model, device=options.device)
    found = {folder.name: measure(pipe, folder, options.every, options.crop) for folder in options.folders}
    print("| fault | " + " | ".join(f"{name} ({one['tiles']} tiles)" for name, one in found.items()) + " |")
    print("| --- |" + " --- |" * len(found))
    for fault in FAULTS:
        print(f"| {fault} | " + " | ".join(f"{one['counts'][fault]}" for one in found.values()) + " |")
    print("\n| largest share of a limit | " + " | ".join(found) + " |")
    print("| --- |" + " --- |" * len(found))
    for name in next(iter(found.values()))["largest"]:
        print(f"| {name} | " + " | ".join(f"{one['largest'].get(name, 0):.2f}" for one in found.values()) + " |")
    step, check = (statistics.median(sum((one[what] for one in found.values()), [])) for what in ("steps", "checks"))
    print(f"\na check takes {check * 1e3:.1f} ms, a step {step * 1e3:.0f} ms: {check / step:.2%}")


if __name__ == "__main__":
    main()
