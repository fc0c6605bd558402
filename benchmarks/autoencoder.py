"""Which autoencoder and optimiser learn most in a short time: same data, loss, batch and steps, one run.

    python benchmarks/autoencoder.py --shards "photos/train-*.tar" --validation photos/val-000.tar

Prints parameters, training seconds and the PSNR on the validation crops after --steps steps.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL
from torch.nn import functional as F

from fluxsr.backbone.tiny import build_autoencoder
from fluxsr.evaluation.metrics import psnr_rgb
from fluxsr.imaging.photographs import read_photographs
from fluxsr.training.config import RunConfig
from fluxsr.training.dataset import PhotoCrops
from fluxsr.training.optimizer import build_optimizer
from fluxsr.training.steps.autoencoder import gradient_distance

LATENTS = 32


def autoencoder_kl() -> AutoencoderKL:
    """FLUX's layout without mid attention, of like size."""
    widths = (16, 32, 96, 160)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        latent_channels=LATENTS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).to(memory_format=torch.channels_last)


def autoencoder_dc() -> AutoencoderDC:
    return build_autoencoder((32, 48, 96, 192), (0, 2, 2, 2), LATENTS)


def reconstruct(vae: Any, images: torch.Tensor) -> torch.Tensor:
    encoded = vae.encode(images)
    return vae.decode(encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()).sample.float()


def train(vae: Any, optimizer: str, crops: PhotoCrops, steps: int) -> float:
    config = RunConfig(optimizer=optimizer, lr=1e-3, muon_lr=0.02)  # type: ignore[arg-type]
    chosen = build_optimizer({"vae": list(vae.parameters())}, config)
    peaks = [group["lr"] for group in chosen.param_groups]
    start = time.monotonic()
    for step in range(steps):
        for group, peak in zip(chosen.param_groups, peaks, strict=True):
            group["lr"] = peak * min(1.0, (step + 1) / 30, 2 * (steps - step) / steps)
        images = crops(step, range(16)).contiguous(memory_format=torch.channels_last) * 2 - 1
        with torch.autocast("cpu", torch.bfloat16):
            output = reconstruct(vae, images)
        loss = 3 * F.mse_loss(output, images) + 0.5 * gradient_distance(output, images)
        chosen.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        chosen.step()
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", nargs="+", required=True)
    parser.add_argument("--validation", nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    photos = read_photographs(options.shards, 120)[1]
    validation = read_photographs(options.validation, 8)[1]
    print("| autoencoder | optimiser | parameters | seconds | PSNR dB |\n|---|---|---|---|---|")
    for name, build in {"AutoencoderKL": autoencoder_kl, "AutoencoderDC": autoencoder_dc}.items():
        for optimizer in ("adamw", "muon"):
            scores, seconds = [], []
            for seed in range(options.seeds):
                torch.manual_seed(seed)
                vae = build()
                seconds.append(train(vae, optimizer, PhotoCrops(photos, 64, seed), options.steps))
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                    made = [reconstruct(vae, image[None] / 127.5 - 1) * 127.5 + 127.5 for image in validation]
                saved = [image.clamp(0, 255).round() / 255 for image in made]  # as 8 bits hold it
                each = [psnr_rgb(x, y[None] / 255) for x, y in zip(saved, validation, strict=True)]
                scores.append(float(torch.cat(each).mean()))
            count = sum(p.numel() for p in vae.parameters()) / 1e6
            mean = sum(scores) / len(scores)
            print(
                f"| {name} | {optimizer} | {count:.1f}M | {sum(seconds) / len(seconds):.0f} | {mean:.2f} |", flush=True
            )


if __name__ == "__main__":
    main()
