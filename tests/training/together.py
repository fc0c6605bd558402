"""Runs that one process takes alone, in a test, and two take together.

``torchrun --nproc_per_node 2 together.py OUT`` shares by DDP, with ``fsdp`` behind it by FSDP2.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType, PartialState

from fluxsr.backbones import latents
from fluxsr.backbones.loading import Backbone
from fluxsr.backbones.lora import add_lora
from fluxsr.backbones.prompts import random_prompt
from fluxsr.backbones.tiny import build_autoencoder, build_transformer
from fluxsr.backbones.velocity import velocity
from fluxsr.degradation import PRESETS, degrade_samples
from fluxsr.training import loop
from fluxsr.training.config import DistillConfig, RunConfig
from fluxsr.training.dataset import PairCrops
from fluxsr.training.processes import is_distributed, is_main, training_device
from fluxsr.training.steps.distill import Batch, DistillStage
from fluxsr.training.targets import Targets

spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
assert spec is not None and spec.loader is not None
toy: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)


def distill(out: Path, base: torch.dtype = torch.float32, **changes: Any) -> None:
    """The real stage with every term of the paper and an adapter; pairs, degradation and t drawn by the real code."""
    device = training_device("cpu")
    torch.manual_seed(0)
    transformer, vae = build_transformer(4, 1, 1, 1, 8), build_autoencoder([8, 8, 8, 16], [0, 1, 1, 1], 4)
    add_lora(transformer.to(base), rank=2, alpha=2.0)
    if changes.get("gradient_checkpointing"):
        transformer.enable_gradient_checkpointing()
    backbone = Backbone(transformer, vae.requires_grad_(False), random_prompt(3, 8, torch.Generator().manual_seed(0)))
    generator = torch.Generator().manual_seed(1)
    photos = [torch.randint(0, 256, (3, 96, 96), generator=generator).to(torch.uint8) for _ in range(3)]
    pairs = [torch.randn(2, 4, 12, 12, generator=generator) for _ in photos]
    run = RunConfig(
        steps=4, batch=4, crop=32, lr=1e-2, warmup=0, precision="fp32", device="cpu", tracker="none", log_every=2
    )
    config = DistillConfig(
        replace(run, **changes),
        eps_source="fresh",
        ftd_every=4,  # one of two processes walks no path
    )
    crops = PairCrops(
        Targets(photos, pairs), 32, run.seed, run.batch, lambda hr, g: degrade_samples(hr, PRESETS["realesrgan"], g)
    )

    @torch.no_grad()
    def batches(step: int, samples: Sequence[int]) -> Batch:
        x_0, lr_up, z_0, eps = crops(step, samples)
        return x_0, latents.encode(vae, lr_up), z_0, eps

    def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # Adam enlarges the rounding of small gradients
        return 100 * (x - y).square().mean((1, 2, 3))

    stage = DistillStage(config, backbone, batches, distance, device)

    def validate(_step: int, _path: Path) -> dict[str, float]:
        with torch.no_grad():
            v = velocity(transformer, torch.ones(1, 4, 4, 4), 0.25, backbone.prompt)
        return {"val/v": round(float(v.abs().mean()), 4)}

    loop.run(stage, config.run, out, validate, recipe=config)


def sharded(out: Path) -> None:
    """Half way, and on from the checkpoint; validation runs the model on the main process alone."""
    distill(out / "half", stop=2, ema=0.5)
    distill(out / "half", ema=0.5)
    distill(out / "bf16", base=torch.bfloat16, precision="bf16", gradient_checkpointing=True)


class Marked(toy.ToyStage):
    """Something happens at step 4, where sample 3 is, that is on the last process only."""

    what = ""

    def losses(self, step: int, samples: Any) -> Any:
        terms = super().losses(step, samples)
        if step == 4 and 3 in samples:
            if self.what == "signal":
                signal.raise_signal(signal.SIGTERM)
            if self.what == "nan":
                terms["square"] = terms["square"] * float("nan")
        return terms


def marked(out: Path, what: str) -> None:
    stage = Marked()
    stage.what = what
    try:
        loop.run(stage, toy.config(), out, lambda step, path: {"val/main": float(is_main())})
        ended = "done"
    except (KeyboardInterrupt, loop.Diverged) as error:
        ended = f"{type(error).__name__} {error}"
    rank = os.environ.get("RANK", "0")
    (out / f"ended-{rank}.txt").write_text(ended, encoding="utf-8")


def shard() -> None:
    """FSDP2 on the CPU as the shipped file asks for it; accelerate itself offers it on GPUs only."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser, prepare_multi_gpu_env

    file = Path(__file__).parents[2] / "recipes" / "accelerate" / "8gpu_fsdp2.yaml"
    given = ["--config_file", str(file), "-m", "fluxsr"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(given))
    asked = prepare_multi_gpu_env(arguments)
    os.environ |= {key: value for key, value in asked.items() if key.startswith(("FSDP", "ACCELERATE"))}
    training_device("cpu")
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def main(out: Path, how: str) -> None:
    torch.set_num_threads(1)
    assert is_distributed()
    if how == "fsdp":
        shard()
        return sharded(out)
    loop.run(toy.ToyStage(), toy.config(), out / "toy")
    loop.run(toy.ToyStage(), toy.config(accumulate=2), out / "accumulated")
    distill(out / "distill")
    marked(out / "stopped", "signal")
    marked(out / "stopped", "")
    marked(out / "nan", "nan")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "ddp")
