"""Run the stages autoencoder, teacher and restorer from their recipes: read the data, train, validate, export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fluxsr.backbones import latents
from fluxsr.backbones.loading import Backbone, load_base, save_base
from fluxsr.backbones.parts import load_part
from fluxsr.backbones.restorer import with_restorer
from fluxsr.backbones.tiny import build_autoencoder
from fluxsr.degradation import load_settings
from fluxsr.errors import InputError
from fluxsr.imaging.io import contact_sheet
from fluxsr.imaging.photographs import read_photographs, whole_tokens
from fluxsr.losses.lpips import load_lpips
from fluxsr.losses.lpips_vgg import load_lpips_vgg
from fluxsr.training import loop
from fluxsr.training.ahead import Ahead
from fluxsr.training.batches import crops_of_run
from fluxsr.training.config import AutoencoderConfig, RestorerConfig, TeacherConfig
from fluxsr.training.dataset import PhotoCrops
from fluxsr.training.processes import is_main, main_first, refuse_sharding, training_device
from fluxsr.training.run_folder import check_free
from fluxsr.training.steps.autoencoder import AutoencoderStage, fit_scale
from fluxsr.training.steps.restorer import RestorerStage
from fluxsr.training.steps.teacher import TeacherStage
from fluxsr.training.validation import enlarged_photograph, spectral_scores, validation_photographs


def train_autoencoder(config: AutoencoderConfig, out: Path) -> None:
    """Train stage 1 and write ``out/vae`` in diffusers layout."""
    refuse_sharding("the autoencoder")
    check_free(out, "vae")
    device = training_device(config.run.device)
    _, photos = read_photographs(config.data.shards, config.data.limit)
    validation = validation_photographs(config.data)
    torch.manual_seed(config.run.seed)  # for the initial weights; diffusers takes no generator
    vae = build_autoencoder(
        config.widths, config.layers, config.latent_channels, config.decoder_layers, config.upsample
    )
    stage = AutoencoderStage(config, vae, photos, device)

    def validate(step: int, _path: Path) -> dict[str, float]:
        if not validation:
            return {}
        output = [_reconstruct(stage.vae, image.to(device)) for image in validation]
        contact_sheet(out / "reconstructions.png", [validation[:6], output[:6]])
        results, targets = ([image[None] / 255 for image in images] for images in (output, validation))
        return spectral_scores(results, targets)

    loop.run(stage, config.run, out, validate, recipe=config)
    if not is_main():
        return
    crops = PhotoCrops(photos, config.run.crop, config.run.seed)
    scale = fit_scale(stage.vae, [crops(k, range(32)).to(device) for k in range(8)])
    stage.vae.register_to_config(scaling_factor=scale)
    stage.vae.to(torch.bfloat16).save_pretrained(out / "vae")


def perceptual_distance(perceptual: str, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the LPIPS that the option ``perceptual`` names: "lpips" is VGG, a .safetensors file is SqueezeNet.

    Raises:
        InputError: the option names something else, or a file that is not LPIPS (squeeze).
    """
    if perceptual.endswith(".safetensors"):
        return load_lpips(perceptual).to(device)
    if perceptual != "lpips":
        raise InputError(f"perceptual is {perceptual!r}; give lpips (VGG) or a .safetensors file of LPIPS (squeeze)")
    with main_first():  # one process downloads VGG16 if it is missing
        return load_lpips_vgg().to(device)


def train_teacher(config: TeacherConfig, out: Path) -> None:
    """Train stage 2 and write ``out/base``: transformer, autoencoder and fixed prompt."""
    refuse_sharding("the teacher")
    check_free(out, "base")
    device = training_device(config.run.device)
    _, photos = read_photographs(config.data.shards, config.data.limit)
    vae = load_part(Path(config.autoencoder), "vae", torch.float32).to(device, memory_format=torch.channels_last)
    encoded = encode_photos(vae, photos, config.run.precision)
    stage = TeacherStage(config, encoded, latents.latent_pixels(vae), device)
    loop.run(stage, config.run, out, recipe=config)
    if not is_main():
        return
    save_base(Backbone(stage.transformer.to(torch.bfloat16), vae.to(torch.bfloat16), stage.prompt), out / "base")


def encode_photos(vae: Any, photos: list[Tensor], precision: str) -> list[Tensor]:
    """Encode photographs (3,H,W), uint8, cropped to whole tokens, to normalised latents (C,h,w), float16."""
    device, found = next(vae.parameters()).device, []
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for photo in photos:
            image = whole_tokens(photo)[None].to(device).float() / 255
            found.append(latents.encode(vae, image.contiguous(memory_format=torch.channels_last))[0].half())
    return found


@torch.no_grad()
def _reconstruct(vae: Any, image: Tensor) -> Tensor:
    """Encode and decode a photograph (3,H,W), uint8. Return float values in 0..255."""
    with torch.autocast(image.device.type, torch.bfloat16):
        x = image[None].float() / 127.5 - 1
        output = vae(x.contiguous(memory_format=torch.channels_last)).sample[0].float().cpu() * 127.5 + 127.5
    return output.clamp(0, 255)


def train_restorer(config: RestorerConfig, out: Path) -> None:
    """Train stage 4 and write ``out/base``: the base, whose autoencoder has the restorer."""
    refuse_sharding("the restorer")
    check_free(out, "base")
    settings, device = load_settings(config.degradation), training_device(config.run.device)
    base = load_base(config.base, device, torch.float32)
    base.vae = with_restorer(base.vae, config.width, config.growth, config.blocks)
    restorer = base.vae.restorer.requires_grad_(True)
    if config.start:
        restorer.load_state_dict(load_file(config.start))
    distance = perceptual_distance(config.perceptual, device) if config.tv_lpips_weight else None
    targets = validation_photographs(config.data)
    degraded = [enlarged_photograph(photo[None] / 255, settings, config.run.seed, k) for k, photo in enumerate(targets)]

    @torch.no_grad()
    def validate(_step: int, _path: Path) -> dict[str, float]:
        if not targets:
            return {}
        output = [restorer(image.to(device)).cpu().clamp(0, 1) for image in degraded]
        rows = [[image[0] * 255 for image in images[:6]] for images in (degraded, output)]
        contact_sheet(out / "restored.png", [*rows, targets[:6]])
        scored_by = None if distance is None else lambda x, y: distance(x.to(device), y.to(device))
        return spectral_scores(output, [photo[None] / 255 for photo in targets], distance=scored_by)

    with crops_of_run(config, base.vae, settings, out) as crops:
        stage = RestorerStage(config, restorer, Ahead(crops), distance, device)
        loop.run(stage, config.run, out, validate, config, counts=crops.targets_seen, targets=crops.name)
    if is_main():
        base.transformer.to(torch.bfloat16)
        base.vae.to(torch.bfloat16)
        save_base(base, out / "base")
