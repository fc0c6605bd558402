"""Time and memory of inference at FLUX.1-dev's or FLUX.2 klein 4B's size, with random weights: nothing is downloaded.

    python benchmarks/full_size.py [--base klein] [--budget 170] [--rows NAME ...] [--json results.json]
    python benchmarks/full_size.py --tiny    # the same code with a small model on the CPU, in seconds

FluxSRPipeline enlarges a random image by 4. Each row of the table is one configuration, named by ROWS below.

- "whole call" is the pipeline's call from PIL image to PIL image, by wall clock.
- "device" starts once the enlarged image is on the device and includes merging the tiles.
- Both are the median of up to three calls after a warm-up call.
- "encode", "transformer" and "decode" are timed apart, where the image is one tile.
- "of ceiling" is the transformer's rate, relative to a product of two 8192 x 8192 bfloat16 matrices on this device.
- "all of ceiling" is the same for transformer and autoencoder together, in the time of "device".
- "peak GiB" is the peak of torch's allocator, weights included. The CUDA context comes on top.
- "PSNR" (dB) and "worst" pixel (of 255) compare the picture, without colour fix, with that of the folded model.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import measuring
import numpy as np
import torch
from measuring import seconds
from PIL import Image

from fluxsr.backbones import compiling, latents, quantize
from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.backbones.device import best_device
from fluxsr.backbones.folding import fold
from fluxsr.backbones.velocity import velocity
from fluxsr.imaging import io, resize
from fluxsr.imaging.tiling import tiles
from fluxsr.pipeline import FluxSRPipeline

Pictures = dict[tuple[str, int, int], torch.Tensor]  # by base, side and prompt length
CONFIGS = {"flux": AdapterConfig(t_l=0.25, guidance=3.5), "klein": AdapterConfig(t_l=0.25)}
CALLS, ENOUGH = 3, 3.0  # calls per measurement; seconds after which no further call is begun
SHRUNK = 16  # --tiny divides sides, tiles and prompt lengths by this
COLUMNS = (
    "row", "whole call s", "device s", "encode", "transformer", "decode", "of ceiling", "all of ceiling",
    "peak GiB", "PSNR", "worst", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One configuration; lengths are in output pixels."""

    name: str
    side: int
    model: str = "folded"  # or unfolded, offloaded, int8, fp8, nf4
    compiled: bool = False
    tile: int = 0  # largest tile; 0 takes the whole image
    batch: int = 1  # tiles per forward pass
    tokens: int = 512  # of the prompt
    overlap: int = 128
    base: str = "flux"  # or klein


ROWS = (  # important rows first, as a run may be cut short; rows of one model together, as each is built anew
    Row("folded-1024", 1024),
    Row("64-tokens-1024", 1024, tokens=64),
    Row("folded-512", 512),
    Row("unfolded-1024", 1024, "unfolded"),
    Row("compiled-1024", 1024, compiled=True),
    Row("compiled-4096-batch-1", 4096, compiled=True, tile=1024, overlap=256),
    Row("compiled-64-tokens-1024", 1024, compiled=True, tokens=64),
    Row("compiled-2048-batch-4", 2048, compiled=True, tile=1152, batch=4, overlap=192),
    Row("compiled-512", 512, compiled=True),
    Row("offloaded-1024", 1024, "offloaded"),
    Row("int8-1024", 1024, "int8"),
    Row("int8-compiled-1024", 1024, "int8", compiled=True),
    Row("nf4-1024", 1024, "nf4"),
    Row("fp8-1024", 1024, "fp8"),
    *(
        Row(f"klein-{name}{side}", side, model, compiled, base="klein")
        for name, model, compiled in (
            *(("", "folded", False), ("compiled-", "folded", True)),
            *(("int8-", "int8", False), ("int8-compiled-", "int8", True)),
        )
        for side in (1024, 512, 2048)
    ),
)


def smaller(row: Row) -> Row:
    """Return the row for a model that runs on a CPU in no time."""
    lengths = {name: getattr(row, name) // SHRUNK for name in ("tile", "tokens", "overlap")}
    return replace(row, side=max(64, row.side // SHRUNK), **lengths)  # the pipeline takes inputs of 16 pixels or more


class Models:
    """Hold one transformer and one autoencoder: those of the current row."""

    def __init__(self, device: torch.device, tiny: bool):
        self.device, self.tiny = device, tiny
        self.made: tuple[str, str, bool] | None = None
        self.transformer: Any = None
        self.vae: Any = None

    def pipeline(self, row: Row) -> FluxSRPipeline:
        """Return a pipeline of the row's model, building it where the row before used another one."""
        if self.made != (row.base, row.model, row.compiled):
            self.made = self.transformer = self.vae = None  # two models do not fit a GPU
            gc.collect()
            torch.cuda.empty_cache()  # does nothing without CUDA
            self._make(row)
        prompt = measuring.prompt(self.device, row.tokens, self.tiny, row.base)
        return FluxSRPipeline(self.transformer, self.vae, prompt, **CONFIGS[row.base].registered)

    def _make(self, row: Row) -> None:
        self.vae = measuring.autoencoder(self.device, self.tiny, row.base)
        transformer = measuring.transformer(self.device, self.tiny, row.base)
        if row.model != "unfolded":
            pooled = measuring.prompt(self.device, 64, self.tiny, row.base).pooled_prompt_embeds
            transformer = fold(transformer, *CONFIGS[row.base].condition, pooled)
        if row.model in ("int8", "fp8", "nf4"):
            quantize.quantize_(transformer, quantize.scheme_of(row.model, self.device, torch.bfloat16))
        if row.model == "offloaded":  # with the options of the package's loader
            home, stream = torch.device("cpu"), self.device.type == "cuda"
            transformer.to(home).enable_group_offload(
                self.device, home, offload_type="block_level", num_blocks_per_group=1, use_stream=stream
            )
        if row.compiled:  # --tiny only traces: seconds instead of minutes
            torch._dynamo.reset()
            compiling.compile_(transformer, self.vae, **({"backend": "eager"} if self.tiny else {}))
        self.transformer, self.made = transformer, (row.base, row.model, row.compiled)


def timed(call: Callable[[], Any], device: torch.device) -> float:
    """Return the median of up to ``CALLS`` calls, fewer where they are long."""
    times: list[float] = []
    while len(times) < CALLS and sum(times) < ENOUGH:
        times.append(seconds(call, device))
    return median(times)


def difference(one: torch.Tensor, other: torch.Tensor) -> dict[str, float | None]:
    """Return the PSNR in dB (None for equal pictures) and the largest difference, of 255."""
    error = (one.clamp(0, 1) - other.clamp(0, 1)).double()
    square = error.square().mean()
    psnr = None if square == 0 else float(-10 * torch.log10(square))
    return {"psnr": psnr, "worst": 255 * float(error.abs().max())}


def parts(pipe: FluxSRPipeline, lr_up: torch.Tensor) -> dict[str, float]:
    """Time encoder, transformer and decoder, each alone."""
    z, device, (t, guidance) = latents.encode(pipe.vae, lr_up), lr_up.device, pipe.adapter_config.condition
    calls: dict[str, Callable[[], Any]] = {
        "encode": lambda: latents.encode(pipe.vae, lr_up),
        "transformer": lambda: velocity(pipe.transformer, z, t, pipe.prompt, guidance),
        "decode": lambda: latents.decode(pipe.vae, z),
    }
    return {name: timed(call, device) for name, call in calls.items()}


@torch.no_grad()
def measure(row: Row, models: Models, pictures: Pictures, ceiling: float) -> dict[str, Any]:
    """Measure time and memory of one row, and keep the folded model's picture to compare others with."""
    device, cuda = models.device, models.device.type == "cuda"
    pipe = models.pipeline(row)
    pixels = np.random.default_rng(0).integers(0, 256, (row.side // 4, row.side // 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    lr_up = resize.bicubic(io.as_tensors(image)[0], (row.side, row.side)).to(device)
    options: dict[str, Any] = {"tile_size": row.tile or row.side, "tile_overlap": row.overlap, "batch_size": row.batch}
    tiling = tiles.grid(row.side, row.side, options["tile_size"], row.overlap, latents.pixel_multiple(models.vae))
    side = tiling.rows.tile
    found: dict[str, Any] = {"tiles": len(tiling), "tile_side": side}
    tile = lr_up[..., :side, :side].expand(row.batch, -1, -1, -1)
    found["first_call_s"] = seconds(lambda: pipe.one_step(tile), device)  # compiles, where anything is compiled
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    found["device_s"] = timed(lambda: tiles.stream(lr_up, pipe.one_step, tiling, batch_size=row.batch), device)
    found["whole_s"] = timed(lambda: pipe(image, 4, **options), torch.device("cpu"))  # it ends on the host
    found["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30 if cuda else None
    if len(tiling) > 1:
        return found
    found |= parts(pipe, lr_up)
    flop = measuring.transformer_flop(pipe.transformer, side, row.tokens)
    found["of_ceiling"] = flop / found["transformer"] / ceiling
    flop += measuring.autoencoder_flop(side, models.tiny, row.base)
    found["all_of_ceiling"] = flop / found["device_s"] / ceiling
    made = pipe(image, 4, color_fix="none", output_type="pt", **options).images
    key = row.base, row.side, row.tokens
    if (row.model, row.compiled) == ("folded", False):
        pictures[key] = made
    return found | difference(made, pictures[key]) if key in pictures else found


def guarded(row: Row, models: Models, pictures: Pictures, ceiling: float) -> dict[str, Any]:
    """Return what was measured, or the error that prevented it."""
    try:
        return asdict(row) | measure(row, models, pictures, ceiling)
    except Exception as error:  # whatever it is, the next row gets its chance
        models.made = None
        return asdict(row) | {"skipped": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"}


def line(row: dict[str, Any]) -> str:
    """Return a row of the Markdown table."""

    def shown(key: str, digits: int) -> str:
        return "-" if row.get(key) is None else f"{row[key]:.{digits}f}"

    notes = [row.get("skipped", "")]
    if row["compiled"] and "first_call_s" in row:
        notes += [f"the first call took {row['first_call_s']:.1f} s"]
    if row.get("tiles", 1) > 1:
        notes += [f"{row['tiles']} tiles of {row['tile_side']} px, {row['batch']} at a time"]
    numbers = [shown(key, 3) for key in ("whole_s", "device_s", "encode", "transformer", "decode")]
    numbers += [shown("of_ceiling", 2), shown("all_of_ceiling", 2), shown("peak_gib", 2)]
    numbers += ["equal" if "worst" in row and row["psnr"] is None else shown("psnr", 1), shown("worst", 2)]
    return f"| {row['name']} | {' | '.join(numbers)} | {'; '.join(note for note in notes if note)} |"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="Default: all of --base.")
    parser.add_argument("--base", choices=list(CONFIGS), default="flux", help="Model. Default: flux, FLUX.1-dev.")
    parser.add_argument("--budget", type=float, help="Seconds after which no further row is begun.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="Also write the measurements to this file, after every row.")
    parser.add_argument("--tiny", action="store_true", help="Use a small model and small images on the CPU.")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options, started = parse(arguments), time.perf_counter()
    diffusers.logging.set_verbosity_error()
    device = torch.device("cpu") if options.tiny else best_device(options.device)
    results: dict[str, Any] = measuring.environment(device) | {"rows": []}
    ceiling = results["ceiling_tflop_per_s"] * 1e12
    models, pictures = Models(device, options.tiny), Pictures()
    print(f"{results['device']}, ceiling {ceiling / 1e12:.3g} TFLOP/s\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    for row in (row for row in ROWS if (row.name in options.rows if options.rows else row.base == options.base)):
        if options.budget is not None and time.perf_counter() - started > options.budget:
            found = asdict(row) | {"skipped": "the budget is spent"}
        else:
            found = guarded(smaller(row) if options.tiny else row, models, pictures, ceiling)
        results["rows"].append(found)
        print(line(found), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
