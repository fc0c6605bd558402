"""Step time and peak memory of the distillation at FLUX.1-dev's size, with random weights: no download.

    python benchmarks/train_full_size.py [--sizes 512 1024] [--bases bf16 nf4] [--json results.json]
    python benchmarks/train_full_size.py --tiny    # the same code on a small model, on the CPU, in seconds

The real DistillStage runs in the real loop: LoRA of rank 64, AdamW, bf16, gradient checkpointing of transformer and
decoder, one sample per step (two rows in the transformer: the path and the one step). Seconds are the median of
--steps steps after two, between device events at their starts. Peak memory is that of torch's allocator over
these steps; the CUDA context comes on top. Random images stand for the data: reading and degrading is not in the time.
Every case has a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
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

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel

from fluxsr.backbone.adapter import add_lora
from fluxsr.backbone.device import best_device
from fluxsr.backbone.latents import encode
from fluxsr.backbone.loading import Backbone
from fluxsr.backbone.prompts import random_prompt
from fluxsr.backbone.quantize import nf4_in_place
from fluxsr.losses.features import FeatureNetwork, feature_distance
from fluxsr.training import loop
from fluxsr.training.config import DistillConfig, RunConfig
from fluxsr.training.steps.distill import Batch, DistillStage

WARM_UP = 2
FLUX_DEV: dict[str, Any] = {"guidance_embeds": True}  # transformer/config.json; the rest are diffusers' defaults
TINY: dict[str, Any] = {
    "guidance_embeds": True,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_attention_heads": 1,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 64,
}


class Enough(Exception):
    """All steps are measured; no checkpoint is wanted."""


class Timed(DistillStage):
    """Notes when every step starts, and leaves the loop after the last one."""

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
    """Transformer, autoencoder and prompt with random weights in bfloat16, made on the device itself."""
    widths = (8, 8, 8, 8) if case["tiny"] else (128, 256, 512, 512)
    shape = TINY if case["tiny"] else FLUX_DEV
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)  # float32 first would take twice the memory
    try:
        with device:
            transformer = FluxTransformer2DModel(**shape)
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=widths,
                layers_per_block=2,
                latent_channels=16,
                norm_num_groups=8 if case["tiny"] else 32,
                scaling_factor=0.3611,
                shift_factor=0.1159,
                use_quant_conv=False,
                use_post_quant_conv=False,
            )
    finally:
        torch.set_default_dtype(torch.float32)
    transformer.requires_grad_(False)
    if case["base"] == "nf4":
        nf4_in_place(transformer, torch.bfloat16)
    add_lora(transformer, case["rank"], case["rank"])
    transformer.enable_gradient_checkpointing()
    vae.requires_grad_(False).to(memory_format=torch.channels_last)
    prompt = random_prompt(8 if case["tiny"] else 512, shape.get("joint_attention_dim", 4096), torch.Generator())
    pooled = torch.zeros(1, shape.get("pooled_projection_dim", 768))
    return Backbone(transformer, vae, type(prompt)(prompt.prompt_embeds, pooled).to(device))


def perceptual(case: dict[str, Any], device: torch.device) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """LPIPS of VGG with random weights: the cost of the real one."""
    if case["tiny"]:
        network = FeatureNetwork((4, 8)).requires_grad_(False).to(device)
        return lambda x, y: feature_distance(network, x, y)
    import lpips

    return lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False).requires_grad_(False).to(device)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Take the steps of one case."""
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
    """The case in a process of its own: memory starts at nothing, and one that does not fit spoils no other."""
    done = subprocess.run([sys.executable, __file__, "--case", json.dumps(case)], capture_output=True, text=True)
    if done.returncode:
        return case | {"error": (done.stderr.strip().splitlines() or ["died"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| size | base | pixel losses | s per step | peak GiB |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        peak = "-" if row.get("peak_gib") is None else f"{row['peak_gib']:.1f}"
        took = row.get("error") or f"{row['seconds_per_step']:.3f}"
        pixels = "yes" if row["pixels"] else "no"
        lines.append(f"| {row['side']} | {row['base']} | {pixels} | {took} | {peak} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024], metavar="PX")
    parser.add_argument("--bases", nargs="+", choices=("bf16", "nf4"), default=["bf16", "nf4"])
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each case (%(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the measurements here too")
    parser.add_argument("--tiny", action="store_true", help="a small model at 64 px on the CPU")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # a child process: the case as JSON
    options = parser.parse_args(arguments)
    if options.case:
        print(json.dumps(measure(json.loads(options.case))))
        return []
    common = {"device": options.device, "rank": options.rank, "steps": options.steps, "tiny": options.tiny}
    if options.tiny:
        options.sizes, common = [64], common | {"device": "cpu", "rank": 4}
    cases = [
        {"side": side, "base": base, "pixels": pixels, **common}
        for side in options.sizes
        for base in options.bases
        for pixels in (False, True)
    ]
    rows = [measure(case) if options.tiny else in_child(case) for case in cases]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return rows


if __name__ == "__main__":
    main()
