"""Measure step time and peak memory of distillation at FLUX.1-dev's size, with random weights and no download.

    python benchmarks/train_full_size.py [--sizes 512 1024] [--bases bf16 nf4] [--budget 90] [--json results.json]
    python benchmarks/train_full_size.py --memory  # count what a step keeps for its backward pass, without a GPU
    python benchmarks/train_full_size.py --tiny    # the same code with a small model on the CPU

The real DistillStage runs in the real loop: LoRA of rank 64, AdamW, bf16, gradient checkpointing of transformer and
decoder, and one sample per step (two rows in the transformer: the path and the single step). Seconds are the median
of --steps steps after two warm-up steps, between device events. Peak memory is that of torch's allocator over these
steps, and the CUDA context comes on top. The data are random images, so the time does not include reading and
degrading. Every case runs in its own process. The most important cases come first and are written at once, so a run
may be cut short.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import measuring
import torch
import train_memory

from fluxsr.backbones.device import best_device
from fluxsr.backbones.latents import encode
from fluxsr.backbones.loading import Backbone
from fluxsr.backbones.lora import add_lora
from fluxsr.backbones.quantize import nf4_in_place
from fluxsr.training import loop
from fluxsr.training.config import DistillConfig, RunConfig
from fluxsr.training.steps.distill import Batch, DistillStage

WARM_UP = 2


class Enough(Exception):
    """Raised to leave the loop once all steps are measured."""


class Timed(DistillStage):
    """Record when every step starts, and leave the loop after the last one."""

    def watch(self, steps: int) -> list[Any]:
        self.steps, self.starts = steps, []
        return self.starts

    def losses(self, step: int, samples: Sequence[int]) -> dict[str, torch.Tensor]:
        if self.device.type == "cuda":
            event: Any = torch.cuda.Event(enable_timing=True)
            event.record()
        else:
            event = time.perf_counter()
        self.starts.append(event)
        if step == WARM_UP and self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        if step == self.steps:
            raise Enough
        return super().losses(step, samples)


def seconds(a: Any, b: Any) -> float:
    return b - a if isinstance(a, float) else a.elapsed_time(b) / 1000


def build(case: dict[str, Any], device: torch.device) -> Backbone:
    """Return the transformer with a LoRA, the autoencoder and the prompt."""
    tiny = case["tiny"]
    transformer = measuring.transformer(device, tiny).train()
    if case["base"] == "nf4":
        nf4_in_place(transformer, torch.bfloat16)
    add_lora(transformer, case["rank"], case["rank"])
    transformer.enable_gradient_checkpointing()
    prompt = measuring.prompt(device, 8 if tiny else 512, tiny)
    return Backbone(transformer, measuring.autoencoder(device, tiny), prompt)


def perceptual(case: dict[str, Any], device: torch.device) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return LPIPS of VGG with random weights, at the cost of the real one; for a tiny model, the squared error."""
    if case["tiny"]:
        return lambda x, y: (x - y).square().mean((1, 2, 3))
    import lpips

    return lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False).requires_grad_(False).to(device)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Run the steps of one case and measure them."""
    device, side = best_device(case["device"]), case["side"]
    backbone = build(case, device)
    steps = case["steps"] + WARM_UP
    run = RunConfig(
        steps=steps + 1, batch=1, crop=side, device=str(device), tracker="none", save_every=10**9, log_every=10**9,
        decoder_checkpointing=True,
    )  # fmt: skip
    weight = 1.0 if case["pixels"] else 0.0
    config = DistillConfig(run, guidance=3.5, mse_weight=weight, tv_lpips_weight=weight)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, side, side, generator=generator).to(device)
    eps = torch.randn(1, 16, side // 8, side // 8, generator=generator).to(device)

    @torch.no_grad()
    def batches(_step: int, _samples: Sequence[int]) -> Batch:  # z_0 comes with the pair, z_l is encoded every step
        return image, encode(backbone.vae, image.flip(3)), eps.flip(3), eps

    distance = perceptual(case, device) if case["pixels"] else None
    stage = Timed(config, backbone, batches, distance, device)
    starts = stage.watch(steps)
    with tempfile.TemporaryDirectory() as out, contextlib.suppress(Enough):
        loop.run(stage, run, Path(out))
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
    times = [seconds(a, b) for a, b in zip(starts[WARM_UP:-1], starts[WARM_UP + 1 :], strict=True)]
    return {
        **case,
        "parameters": sum(p.numel() for p in backbone.transformer.parameters()),
        "trained": sum(p.numel() for p in backbone.transformer.parameters() if p.requires_grad),
        "seconds_per_step": median(times),
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if cuda else None,
        "device_name": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }


def in_child(case: dict[str, Any]) -> dict[str, Any]:
    """Run the case in its own process, so that its memory starts at zero and a failure affects no other case."""
    done = subprocess.run([sys.executable, __file__, "--case", json.dumps(case)], capture_output=True, text=True)
    if done.returncode:
        return case | {"error": (done.stderr.strip().splitlines() or ["died"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def row_of(case: dict[str, Any], late: bool) -> dict[str, Any]:
    """Return what was measured, or the reason in one line why nothing was."""
    if late:
        return case | {"error": "the budget is spent"}
    needed = ["bitsandbytes"] * (case["base"] == "nf4") + ["lpips", "torchvision"] * (
        case["pixels"] and not case["tiny"]
    )
    if missing := [package for package in needed if not _has(package)]:
        return case | {"error": f"{missing[0]} is not installed"}
    return measure(case) if case["tiny"] else in_child(case)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def line(row: dict[str, Any]) -> str:
    peak = "-" if row.get("peak_gib") is None else f"{row['peak_gib']:.1f}"
    took = row.get("error") or f"{row['seconds_per_step']:.3f}"
    return f"| {row['side']} | {row['base']} | {'yes' if row['pixels'] else 'no'} | {took} | {peak} |"


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024], metavar="PX")
    parser.add_argument("--bases", nargs="+", choices=("bf16", "nf4"), default=["bf16", "nf4"])
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each case (%(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--budget", type=float, help="seconds after which no further case is begun")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file, after every case")
    parser.add_argument("--tiny", action="store_true", help="use a small model at 64 px on the CPU")
    parser.add_argument("--memory", action="store_true", help="count memory on the meta device instead of measuring")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # a child process: the case as JSON
    options = parser.parse_args(arguments)
    if options.case:
        print(json.dumps(measure(json.loads(options.case))))
        return []
    if options.memory:
        print(train_memory.table(options.sizes))
        return []
    common = {"device": options.device, "rank": options.rank, "steps": options.steps, "tiny": options.tiny}
    if options.tiny:
        options.sizes, common = [64], common | {"device": "cpu", "rank": 4}
    cases = [  # the whole method in bfloat16 first, then what leaves a part of it out, then nf4
        {"side": side, "base": base, "pixels": pixels, **common}
        for base in options.bases
        for pixels in (True, False)
        for side in options.sizes
    ]
    started, rows = time.perf_counter(), []
    print("| size | base | pixel losses | s per step | peak GiB |\n| --- | --- | --- | --- | --- |", flush=True)
    for case in cases:
        late = options.budget is not None and time.perf_counter() - started > options.budget
        rows.append(row_of(case, late))
        print(line(rows[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return rows


if __name__ == "__main__":
    main()
