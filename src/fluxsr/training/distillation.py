"""Run stage 5 from its recipe: train a student on a base and teacher pairs, and export it as a model folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fluxsr import flow
from fluxsr.backbones import latents
from fluxsr.backbones.adapter import invalid_setting
from fluxsr.backbones.device import image_layout
from fluxsr.backbones.encoder_lora import encoder_file
from fluxsr.backbones.families import family_of
from fluxsr.backbones.loading import Backbone
from fluxsr.backbones.lora import lora_file
from fluxsr.backbones.parts import part_config
from fluxsr.backbones.places import folder_of
from fluxsr.backbones.velocity import velocity
from fluxsr.degradation import DegradationSettings, load_settings
from fluxsr.errors import InputError
from fluxsr.imaging.io import contact_sheet
from fluxsr.imaging.resize import bicubic
from fluxsr.imaging.tiling import tiles
from fluxsr.training import loop
from fluxsr.training.batches import crops_of_run, prepared
from fluxsr.training.config import DistillConfig
from fluxsr.training.processes import refuse_sharding, training_device
from fluxsr.training.run_folder import check_free
from fluxsr.training.stages import perceptual_distance
from fluxsr.training.steps.distill import DistillStage, check, guidance_missing
from fluxsr.training.student import build_student, export
from fluxsr.training.validation import (
    enlarged_photograph,
    spectral_scores,
    validation_pairs,
    validation_photographs,
)

TILE_OVERLAP = 32  # pixels, as the pipeline's default


def train_distill(config: DistillConfig, out: Path) -> None:
    """Train the student's LoRA and write ``out/model``, a folder that ``--model`` takes."""
    _check(config)
    check_free(out, "model")
    settings, device = load_settings(config.degradation), training_device(config.run.device)
    distance = perceptual_distance(config.perceptual, device) if config.tv_lpips_weight else None
    base = build_student(config, settings.scale, device)
    check(config, base)  # before the pairs are read and decoded
    sets = _validation_sets(config, settings)
    scored_by = _validation_distance(config, distance, device) if sets else None

    def validate(step: int, _path: Path) -> dict[str, float | Path]:
        found: dict[str, float | Path] = {}
        for name, (enlarged, photos) in sets.items():
            output = [_upscaled(base, image, device, config.run.precision) for image in enlarged]
            rows = [[image[0] * 255 for image in images[:6]] for images in (enlarged, output, photos)]
            picture = out / f"validation{name.removeprefix('val').replace('/', '-')}-{step:06d}.png"
            contact_sheet(picture, rows)
            found |= spectral_scores(output, photos, name, scored_by) | {f"{name}/images": picture}
        return found

    with crops_of_run(config, base.vae, settings, out) as targets:
        stage = DistillStage(config, base, prepared(config, base.vae, targets), distance, device)
        counts = targets.targets_seen
        loop.run(stage, config.run, out, validate if sets else None, config, counts=counts, targets=targets.name)
    export(base, config, Path(out, "model"))


def _check(config: DistillConfig) -> None:
    """Check the options before a base of up to 24 GB is loaded.

    Raises:
        InputError: options that contradict each other, or that the base does not support.
    """
    if fault := invalid_setting(config):
        raise InputError(f"the recipe says {fault}")
    base = folder_of(config.base)
    if isinstance(base, Path) and lora_file(base):
        raise InputError(
            f"base is {config.base}, which has a LoRA beside its transformer; the LoRA would be ignored: set base to "
            "the model that the LoRA adapts, and start to this folder"
        )
    if config.paired and (config.pairs or config.eps_source != "fresh"):
        raise InputError(
            f"paired is {config.paired}, whose files have no teacher's noise; set eps_source: fresh, leave pairs empty"
        )
    if not 0 <= config.paired_share <= 1:
        raise InputError(f"paired_share is {config.paired_share}; it must lie between 0 and 1")
    if config.validation_lpips not in ("", "lpips") and not config.validation_lpips.endswith(".safetensors"):
        raise InputError(
            f"validation_lpips is {config.validation_lpips}; give lpips (VGG) or a .safetensors file of LPIPS (squeeze)"
        )
    if config.export == "adapter" and not config.rank:
        raise InputError("export is adapter, but rank is 0, so there is no adapter; set export: model")
    if config.train_decoder and config.export == "adapter":
        raise InputError("train_decoder is on, but an adapter does not contain the decoder; set export: model")
    if config.start and config.export == "adapter":
        raise InputError("start is fused into the base, so an adapter would not contain it; set export: model")
    if config.start and (start := folder_of(config.start)) and isinstance(start, Path) and encoder_file(start):
        raise InputError(f"start is {config.start}, whose LoRA of the autoencoder's encoder training does not read")
    if config.quantize_base != "none" and not (config.rank and config.export == "adapter"):
        raise InputError(
            f"a base in {config.quantize_base} cannot be trained or exported; set rank and export: adapter"
        )
    if config.tv_lpips_weight and not config.perceptual:
        raise InputError(
            f"tv_lpips_weight is {config.tv_lpips_weight}, but perceptual is empty; give lpips (VGG) or a "
            ".safetensors file of LPIPS (squeeze), or set tv_lpips_weight: 0"
        )
    source = part_config(config.base, "transformer")
    if config.guidance is None and family_of(source).embeds_guidance(source):
        raise guidance_missing(config.base)
    if config.train_encoder_lora and not config.rank:
        raise InputError("train_encoder_lora is on, but rank is 0; set rank, which the encoder's LoRA has too")
    for what, on in {
        "export: model": config.export == "model",
        "train_encoder_lora": config.train_encoder_lora,
    }.items():
        if on:
            refuse_sharding(what)


def _validation_sets(
    config: DistillConfig, settings: DegradationSettings
) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    """Return enlarged LR images and their targets, (1,3,H,W) in [0,1], by the beginning of their scores' names."""
    sets: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for folder in config.validation_pairs:
        name = f"val/{Path(folder).resolve().name}"
        if name in sets:
            raise InputError(f"validation_pairs has two folders named {name[4:]}; rename one, as their scores share it")
        pairs = validation_pairs(folder, settings.scale, config.data.validation_limit)
        sets[name] = (
            [bicubic(lr, (hr.shape[-2], hr.shape[-1])) for lr, hr in pairs],
            [hr for _, hr in pairs],
        )
    photos = [photo[None] / 255 for photo in validation_photographs(config.data)]
    degraded = [enlarged_photograph(photo, settings, config.run.seed, index) for index, photo in enumerate(photos)]
    return sets | ({"val": (degraded, photos)} if photos else {})


def _validation_distance(
    config: DistillConfig, distance: Callable[[Tensor, Tensor], Tensor] | None, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return LPIPS for validation, which is the loss's own network where both options name the same."""
    if not config.validation_lpips:
        return None
    same = distance and config.validation_lpips == config.perceptual
    lpips = distance if distance and same else perceptual_distance(config.validation_lpips, device)
    return lambda x, y: lpips(x.to(device), y.to(device))


def _upscaled(backbone: Backbone, lr_up: Tensor, device: torch.device, precision: str) -> Tensor:
    """Restore an enlarged image (1,3,H,W) tile by tile, exactly as inference does."""
    multiple = latents.tile_multiple(backbone.vae)
    tiling = tiles.grid(lr_up.shape[-2], lr_up.shape[-1], backbone.config.tile_size, TILE_OVERLAP, multiple)
    return tiles.stream(lr_up, lambda tile: step_image(backbone, tile.to(device), precision), tiling)


@torch.no_grad()
def step_image(backbone: Backbone, lr_up: Tensor, precision: str) -> Tensor:
    """Run the one step of inference on an enlarged image (1,3,H,W) in [0,1]; fuse no adapter.

    Returns:
        The restored image (1,3,H,W) in [0,1].
    """
    with torch.autocast(lr_up.device.type, torch.bfloat16, enabled=precision == "bf16"):
        start = latents.restored(backbone.vae, lr_up.contiguous(memory_format=image_layout(lr_up.device)))
        z_l = latents.encode(backbone.vae, start)
        c = backbone.config
        t, guidance = c.condition
        v = velocity(backbone.transformer, z_l, t, backbone.prompt, guidance)
        z_hat = flow.one_step(z_l, v, c.t_l, c.strength)
        return latents.decode_step(backbone.vae, z_hat, z_l, start).clamp(0, 1)
