"""Score what each part of the pipeline contributes, on the same images.

    python benchmarks/quality.py --lr DIR --hr DIR [--model NAME] [--base NAME] [--niqe-params FILE]
        [--lpips-weights FILE] [--out DIR]

The table has these rows: bicubic interpolation; strength 0, which is the autoencoder and the colour fix alone; the
base model without its adapter; the full method without colour fix; the full method; and the ground truth (HR), in the
columns that need none. Images are matched by file stem. Without --hr the table has only the columns that need no
ground truth.

With --strengths the table has bicubic, the full method at every strength, and HR. Use it to choose a model's strength
on validation images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from PIL import Image

import fluxsr
from fluxsr import FluxSRPipeline
from fluxsr.errors import FluxSRError, InputError
from fluxsr.evaluation import Report, markdown, score_folders, table_of, to_json
from fluxsr.evaluation.folders import list_images

SCALE = 4
ROWS = ("bicubic", "strength 0", "base without adapter", "colour fix off", "full")
DTYPES = ("auto", "bf16", "fp32", "fp16")
Upscale = Callable[[Image.Image], Image.Image]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lr", type=Path, required=True, help="folder of low-resolution images")
    parser.add_argument("--hr", type=Path, help=f"folder of ground truth, {SCALE} times as large")
    parser.add_argument("--model", default="bundled", help="bundled, a folder, or a Hub id")
    parser.add_argument("--adapter", help="adapter folder or Hub id (default: the model's own)")
    parser.add_argument("--base", help="model of the row without adapter (default: --model without its adapter)")
    parser.add_argument("--niqe-params", type=Path, help="NIQE's pristine model, .npz or .mat")
    parser.add_argument("--lpips-weights", type=Path, help="weights of LPIPS (squeeze), .safetensors")
    parser.add_argument("--out", type=Path, help="keep the images and the table in this folder")
    parser.add_argument("--only", type=int, metavar="N", help="take only the first N images")
    parser.add_argument("--crop", type=int, default=4, help="border in pixels left out against HR (%(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--strengths", type=float, nargs="+", metavar="S", help="only compare these strengths")
    parser.add_argument("--tile-size", type=int, help="largest tile in output pixels (default: the model's own)")
    parser.add_argument("--skip-base", action="store_true", help="leave out the row without adapter")
    return parser.parse_args(arguments)


def bicubic(image: Image.Image) -> Image.Image:
    return image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.BICUBIC)


def model_rows(options: argparse.Namespace) -> Iterable[tuple[str, Upscale]]:
    """Yield the name and function of each row that a model makes, loading each model when its row comes."""

    def load(model: str, adapter: str | bool | None) -> FluxSRPipeline:
        return fluxsr.load(model, adapter=adapter, device=options.device, dtype=options.dtype)

    def upscaler(pipe: FluxSRPipeline, **settings: object) -> Upscale:
        def upscale(image: Image.Image) -> Image.Image:
            return pipe(image, SCALE, tile_size=options.tile_size, **settings).images[0]

        return upscale

    pipe = load(options.model, options.adapter)
    if options.strengths:
        for strength in options.strengths:
            yield f"strength {strength:g}", upscaler(pipe, strength=strength)
        return
    yield "strength 0", upscaler(pipe, strength=0.0)
    yield "colour fix off", upscaler(pipe, color_fix="none")
    yield "full", upscaler(pipe)
    if not options.skip_base:
        del pipe  # one model in memory at a time
        yield "base without adapter", upscaler(load(options.base or options.model, False))


def upscale_folder(images: dict[str, Path], upscale: Upscale, folder: Path, name: str) -> None:
    """Upscale every image to a PNG with its stem, and print the median time to stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    times = []
    for number, (stem, path) in enumerate(images.items(), 1):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        start = time.perf_counter()
        result = upscale(image)
        times.append(time.perf_counter() - start)
        result.save(folder / f"{stem}.png")
        print(f"\r{name}: {number}/{len(images)}", end="", file=sys.stderr, flush=True)
    median = sorted(times)[len(times) // 2]
    print(f"\r{name}: {len(images)} images, median {median:.2f} s", file=sys.stderr)


def reports(options: argparse.Namespace, out: Path) -> list[Report]:
    images = dict(list(list_images(options.lr).items())[: options.only])
    if options.hr is not None:
        missing = sorted(set(images) - set(list_images(options.hr)))
        if missing:
            raise InputError(f"no ground truth in {options.hr} for {', '.join(missing[:5])}")

    def score(folder: Path, hr: Path | None, name: str) -> Report:
        return score_folders(
            folder,
            hr,
            name=name,
            only=list(images),
            crop=options.crop,
            niqe_params=options.niqe_params,
            lpips_weights=options.lpips_weights,
        )

    def rows() -> Iterable[tuple[str, Upscale]]:
        yield "bicubic", bicubic
        yield from model_rows(options)

    table = []
    for name, upscale in rows():
        folder = out / name.replace(" ", "-")
        upscale_folder(images, upscale, folder, name)
        table.append(score(folder, options.hr, name))
        del upscale  # and its model, before the next is loaded
    order = {name: place for place, name in enumerate(ROWS)}
    table.sort(key=lambda report: order.get(report.name, len(order)))  # the rows of --strengths keep their order
    if options.hr is not None:
        table.append(score(options.hr, None, "HR"))
    return table


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            table = reports(options, options.out or Path(scratch))
    except FluxSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    where = f"{options.dtype} on {options.device}"
    print(f"model {options.model}, x{SCALE}, {where}, border {options.crop}")
    text = markdown(table_of(table))
    print(text, end="")
    if options.out:
        (options.out / "quality.md").write_text(text, encoding="utf-8")
        (options.out / "quality.json").write_text(to_json(table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
