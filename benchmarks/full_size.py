"""Time and memory of one step at FLUX.1-dev's size, with random weights: no download.

    python benchmarks/full_size.py [--budget 100] [--rows NAME ...] [--json results.json]
    python benchmarks/full_size.py --tiny    # the same code on a small model, on the CPU, in seconds

FluxSRPipeline enlarges a random image by 4. "device" is all that follows once the enlarged image is on the device, the
merging of tiles included (device events); "whole call" is the pipeline's own call from PIL image to PIL image, with
conversion, bicubic enlargement, colour fix and copies on the host (wall clock). Both are the median of up to three
calls after a warm-up, fewer where calls are long ("runs"). Encoder, transformer and decoder are timed apart where the
image is one tile. Memory is the peak of torch's allocator, weights included; the CUDA context comes on top. TFLOP/s
are those of the "device" time; the ceiling is what this device does in a product of two 8192 x 8192 bfloat16 matrices,
and shares of it are those of the "device" time and of the transformer alone. "PSNR" (dB) and "worst" pixel (of 255) are
of the picture without colour fix, against that of the folded model from the same input, if that row has run.
The model is as the pipeline's loader leaves it (folded), but for what a row's name says.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import numpy as np
import torch
from cases import BASE, ROWS, TOGETHER, Row, smaller
from measuring import environment, kernels, repeated, seconds, transformer_flop, vae_flop
from PIL import Image
from plans import difference
from variants import CONFIG, Models, changed, compiled, graphs

from fluxsr.backbone import latents
from fluxsr.backbone.loading import best_device
from fluxsr.backbone.velocity import velocity
from fluxsr.imaging import inputs, resize, tiles
from fluxsr.pipeline import FluxSRPipeline

COLUMNS = (
    "row", "whole call s", "device s", "encode", "transformer", "decode", "runs", "peak GiB", "TFLOP/s", "of ceiling",
    "transformer's", "PSNR", "worst", "note",
)  # fmt: skip


def parts(pipe: FluxSRPipeline, lr_up: torch.Tensor) -> dict[str, float]:
    """Seconds of encoder, transformer and decoder, each alone."""
    z, device = latents.encode(pipe.vae, lr_up), lr_up.device
    calls: dict[str, Callable[[], Any]] = {
        "encode": lambda: latents.encode(pipe.vae, lr_up),
        "transformer": lambda: velocity(pipe.transformer, z, CONFIG.condition[0], pipe.prompt, CONFIG.condition[1]),
        "decode": lambda: latents.decode(pipe.vae, z),
    }
    return {name: median(repeated(call, device)) for name, call in calls.items()}


def place(row: Row) -> tuple[int, ...]:
    """Rows with the same one make pictures that can be compared."""
    return row.side, row.tile, row.overlap, row.tokens


def picture_error(models: Models, row: Row, made: torch.Tensor) -> dict[str, Any]:
    """Against the folded model's picture of the same input, which is kept: PSNR (None: equal), worst pixel of 255."""
    key = place(row)
    if row.model == "folded" and not row.changes:
        models.pictures[key] = made
    if key not in models.pictures:
        return {}
    psnr, worst = difference(made, models.pictures[key])
    return {"psnr": psnr, "worst": worst}


@torch.no_grad()
def measure(row: Row, models: Models) -> dict[str, Any]:
    """Time and memory of one row."""
    device, cuda = models.device, models.device.type == "cuda"
    pipe = models.pipeline(row.model, row.tokens)
    pixels = np.random.default_rng(0).integers(0, 256, (row.side // 4, row.side // 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    lr_up = resize.bicubic(inputs.tensors(image)[0], (row.side, row.side)).to(device)
    largest = row.tile or row.side
    tiling = tiles.grid(row.side, row.side, largest, row.overlap, latents.pixel_multiple(models.vae))
    side = tiling.rows.tile
    found: dict[str, Any] = {"tiles": len(tiling), "tile_side": side}
    walk = len(tiling) * transformer_flop(pipe.transformer, side, row.tokens) / 1e12
    tflop = walk + len(tiling) * vae_flop(side, models.tiny) / 1e12
    with changed(models, pipe, row.changes):
        graphs_before = graphs()
        first = seconds(lambda: pipe.one_step(lr_up[..., :side, :side].expand(row.batch, -1, -1, -1)), device)
        if "compiled" in row.changes:
            found |= compiled(pipe.transformer)
        found["graphs"] = graphs() - graphs_before
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        times = repeated(lambda: tiles.stream(lr_up, pipe.one_step, tiling, batch_size=row.batch), device)
        options: dict[str, Any] = {"tile_size": largest, "tile_overlap": row.overlap, "batch_size": row.batch}
        calls = repeated(lambda: pipe(image, 4, **options), torch.device("cpu"))  # it ends on the host: wall clock
        found |= {"device_s": median(times), "whole_s": median(calls), "runs": min(len(times), len(calls))}
        found |= {"peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if cuda else None}
        if len(tiling) == 1:
            found |= parts(pipe, lr_up)
            found["transformer_tflop_per_s"] = walk / found["transformer"]
            options |= {"color_fix": "none", "output_type": "pt"}
            found |= picture_error(models, row, pipe(image, 4, **options).images)
            if row.name == BASE:  # how much the step changes at all
                psnr, worst = difference(pipe(image, 4, strength=0, **options).images, models.pictures[place(row)])
                found |= {"no_step_psnr": psnr, "no_step_worst": worst}
        if row.name == TOGETHER and cuda:  # the kernels' times go into the JSON
            found["kernels"] = kernels(lambda: pipe.one_step(lr_up))
    each = median(times) * min(row.batch, len(tiling)) / len(tiling)
    found["first_call_s"] = first - each  # compiling, most of it, where something was compiled
    return found | {"tflop": tflop, "tflop_per_s": tflop / median(times)}


def guarded(row: Row, models: Models, skipped: str) -> dict[str, Any]:
    """What was measured, or in one line why nothing was."""
    if skipped:
        return asdict(row) | {"skipped": skipped}
    try:
        return asdict(row) | measure(row, models)
    except Exception as error:  # whatever it is, the next row has its chance
        reason = (str(error).strip().splitlines() or [""])[0]
        return asdict(row) | {"skipped": f"{type(error).__name__}: {reason}"}


def line(row: dict[str, Any]) -> str:
    def shown(key: str, digits: int) -> str:
        return "-" if row.get(key) is None else f"{row[key]:.{digits}f}"

    notes = [row.get("skipped", "")]
    if row.get("graphs"):
        notes += [f"{row['graphs']} graphs compiled, first call {row['first_call_s']:.1f} s"]
    if row.get("tiles", 1) > 1:
        notes += [f"{row['tiles']} tiles of {row['tile_side']} px, {row['batch']} at a time"]
    notes += [f"with {', '.join(row['changes'])}"] if row["changes"] else []
    if row.get("no_step_psnr"):
        notes += [f"without the step: PSNR {row['no_step_psnr']:.1f}, worst {row['no_step_worst']:.2f}"]
    numbers = [shown(key, 3) for key in ("whole_s", "device_s", "encode", "transformer", "decode")]
    numbers += [shown("runs", 0), shown("peak_gib", 2), shown("tflop_per_s", 0), shown("of_ceiling", 2)]
    numbers += [shown("transformer_of_ceiling", 2)]
    numbers += ["equal" if "worst" in row and row["psnr"] is None else shown("psnr", 1), shown("worst", 2)]
    return f"| {row['name']} | {' | '.join(numbers)} | {'; '.join(note for note in notes if note)} |"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="all, in the order of the table")
    parser.add_argument("--budget", type=float, help="seconds after which no row is begun; imports come on top")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the measurements here too, after every row")
    parser.add_argument("--tiny", action="store_true", help="a small model on the CPU, everything a few times smaller")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options, started = parse(arguments), time.perf_counter()
    diffusers.logging.set_verbosity_error()
    device = torch.device("cpu") if options.tiny else best_device(options.device)
    rows = [row for row in ROWS if not options.rows or row.name in options.rows]
    if options.tiny:
        rows = [smaller(row) for row in rows]
    results: dict[str, Any] = environment(device) | {"rows": []}
    models = Models(device, options.tiny)
    print(f"{results['device']}, ceiling {results['ceiling_tflop_per_s']:.3g} TFLOP/s\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    for row in rows:
        late = options.budget is not None and time.perf_counter() - started > options.budget
        found = guarded(row, models, "the budget is spent" if late else "")
        for name in {"tflop_per_s", "transformer_tflop_per_s"} & set(found):
            found[name.replace("tflop_per_s", "of_ceiling")] = found[name] / results["ceiling_tflop_per_s"]
        results["rows"].append(found)
        results |= {"folding": models.folding, "elapsed_s": time.perf_counter() - started}
        print(line(found), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if error := models.folding:
        shown = f"by {error['max_abs']:.2g} at most, by {error['relative']:.2g} of its norm"
        print(f"\nFolding changes the velocity {shown}.")
    return results


if __name__ == "__main__":
    main()
