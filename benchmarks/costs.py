"""What a trained shape costs at inference, beside its run: bytes, FLOPs and the processor's seconds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fluxsr import FluxSRPipeline
from fluxsr.backbone import latents
from fluxsr.backbone.device import best_dtype
from fluxsr.backbone.parts import load_part

TILE, TILES = 368, 9  # how inference cuts 1024 x 1024 pixels
COSTS = "costs.json"


def step_of(run: Path, dtype: str) -> tuple[Callable[[Tensor], Tensor], int]:
    """What a run's model does to pixels (1,3,H,W) in [0,1], and what H and W must be multiples of."""
    if (run / "model").is_dir():
        pipe = FluxSRPipeline.from_pretrained(run / "model", device="cpu", dtype=dtype)
        return pipe.one_step, latents.pixel_multiple(pipe.vae)
    vae = load_part(run, "vae", best_dtype(torch.device("cpu"), dtype)).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def reconstruct(image: Tensor) -> Tensor:
        return latents.decode(vae, latents.encode(vae, image.contiguous(memory_format=torch.channels_last)))

    return reconstruct, latents.pixel_multiple(vae)


def measure_costs(run: Path, again: bool = False) -> None:
    """Bytes, FLOPs and seconds of inference, unless they are known; the least seconds of all times."""
    before = read(run / COSTS)
    if before and not again:
        return
    # transformer/ and vae/ of a student, vae/ of an autoencoder; not the adapter, which is fused, nor a random base
    files = [file for part in ("model/transformer", "model/vae", "vae") for file in (run / part).glob("*.safetensors")]
    found = {"MB": sum(file.stat().st_size for file in files) / 1e6}
    for dtype in ("fp32", "bf16"):
        step, multiple = step_of(run, dtype)
        side, took = -(-TILE // multiple) * multiple, []
        image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        with FlopCounterMode(display=False) as counter:
            step(image)
        found["TFLOP"] = TILES * counter.get_total_flops() / 1e12
        for _ in range(4):
            start = time.process_time()
            step(image)
            took.append(TILES * (time.process_time() - start))
        found[f"s_{dtype}"] = min([*took, *(before[key] for key in before if key == f"s_{dtype}")])
    write(run / COSTS, found)


def write(path: Path, values: dict[str, float]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=1), encoding="utf-8")
    os.replace(partial, path)


def read(path: Path) -> dict[str, float]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
