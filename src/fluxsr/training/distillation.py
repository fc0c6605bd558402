"""Run stage 5 from its recipe: train a student on a base and teacher pairs, and export it as a model folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fluxsr import flow
from fluxsr.backbones import latents
from fluxsr.backbones.adapter import AdapterConfig, has_config, invalid_setting, load_config
from fluxsr.backbones.families import family_of
from fluxsr.backbones.licence import Licence, licence_of, pass_on, stated, write_notice
from fluxsr.backbones.loading import Backbone, load_base, save, save_base
from fluxsr.backbones.lora import add_lora, fuse_lora, lora_file, save_lora
from fluxsr.backbones.parts import part_config
from fluxsr.backbones.places import folder_of
from fluxsr.backbones.velocity import velocity
from fluxsr.degradation import DegradationSettings, degrade, load_settings
from fluxsr.errors import InputError
from fluxsr.extensions.efficientnet import load_efficientnet
from fluxsr.extensions.patch_offsets import mean_over_offsets
from fluxsr.extensions.postprocess import postprocess
from fluxsr.imaging.io import contact_sheet
from fluxsr.imaging.resize import bicubic
from fluxsr.imaging.tiling import tiles
from fluxsr.keyed import keyed_generator
from fluxsr.losses.features import feature_distance
from fluxsr.losses.lpips import load_lpips
from fluxsr.losses.lpips_vgg import load_lpips_vgg
from fluxsr.pairs.store import PairStore
from fluxsr.training import loop
from fluxsr.training.batches import prepared
from fluxsr.training.config import DistillConfig
from fluxsr.training.pictures import curves
from fluxsr.training.processes import is_main, main_first, refuse_sharding, training_device
from fluxsr.training.run_folder import check_free
from fluxsr.training.stages import load_feature_network
from fluxsr.training.steps.distill import DistillStage, check, guidance_missing
from fluxsr.training.validation import spectral_scores, validation_photographs

TILE_OVERLAP = 32  # pixels, as the pipeline's default


def train_distill(config: DistillConfig, out: Path) -> None:
    """Train the student's LoRA and write ``out/model``, a folder that ``--model`` takes."""
    _check(config)
    check_free(out, "model")
    settings, device = load_settings(config.degradation), training_device(config.run.device)
    distance = _distance(config.perceptual, device) if config.tv_lpips_weight else None
    # The frozen parts are stored in bfloat16 on disk, so loading them in bfloat16 changes no value and saves casts.
    dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
    base = load_base(config.base, device, dtype, config.quantize_base, config.prompt_folder)
    if config.start:  # fused in float32, because bfloat16 would round much of a small adapter away
        fuse_lora(base.transformer.float(), config.start)
        if config.rank:  # frozen below a new LoRA, where float32 would only double its memory
            base.transformer.to(dtype)
    base.config = AdapterConfig(
        t_l=config.t_l,
        guidance=config.guidance,
        train_dtype=config.run.precision,
        scale=settings.scale,
        tile_size=config.tile_size,
        patch_offsets=config.patch_offsets,
        lattice_reach=config.lattice_reach,
        fine_strength=config.fine_strength,
        flat_floor=config.flat_floor,
        strength=config.strength,
        rank=config.rank,
        alpha=config.alpha,
        base=config.name,
        prompt=base.prompt.text,
        licences=[terms.as_dict() for terms in _terms(config, base.transformer)],
    )
    if config.rank:
        torch.manual_seed(config.run.seed)  # for the initial LoRA weights; peft takes no generator
        add_lora(base.transformer, config.rank, config.alpha, config.targets)
    else:
        train_all(base.transformer)
    if config.train_decoder:  # trained weights are float32, and the autoencoder must have one dtype
        base.vae.float().decoder.requires_grad_(True)
    if config.run.gradient_checkpointing:
        base.transformer.enable_gradient_checkpointing()
    check(config, base)  # before the pairs are read and decoded
    stage = DistillStage(config, base, prepared(config, base.vae, settings), distance, device)
    photos = [photo[None] / 255 for photo in validation_photographs(config.data)]
    degraded = [_enlarged(photo, settings, config.run.seed, index) for index, photo in enumerate(photos)]

    def validate(step: int, _path: Path) -> dict[str, float]:
        output = [_upscaled(base, image, device, config.run.precision) for image in degraded]
        rows = [[image[0] * 255 for image in images[:6]] for images in (degraded, output, photos)]
        contact_sheet(out / f"validation-{step:06d}.png", rows)
        curves(out)
        return spectral_scores(output, photos)

    loop.run(stage, config.run, out, validate if photos else None, recipe=config)
    model = Path(out, "model")
    export(base, model, alone=config.export == "adapter")
    if is_main():  # the licences of all sources apply to the result
        write_notice(model, *base.config.licences)
        pass_on(model, config.base, *filter(None, [config.start]))


def _terms(config: DistillConfig, transformer: Any) -> list[Licence]:
    """Return the licences that apply to the student: the base's, its sources', and that of the pairs' teacher.

    The base's licence is recorded under the name that the adapter's config gives to the base.
    """
    own = replace(licence_of(config.base, transformer.config), model=config.name)
    earlier = [terms for source in _sources(config) for terms in load_config(source).licences]
    return stated(own, *earlier, PairStore(config.pairs).manifest().get("licence") if config.pairs else None)


def _sources(config: DistillConfig) -> list[Path]:
    """Return the folders of the models that the student starts from, if they have a config."""
    folders = [folder_of(model) for model in (config.base, config.start) if model]
    return [folder for folder in folders if isinstance(folder, Path) and has_config(folder)]


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
    if config.export == "adapter" and not config.rank:
        raise InputError("export is adapter, but rank is 0, so there is no adapter; set export: model")
    if config.train_decoder and config.export == "adapter":
        raise InputError("train_decoder is on, but an adapter does not contain the decoder; set export: model")
    if config.start and config.export == "adapter":
        raise InputError("start is fused into the base, so an adapter would not contain it; set export: model")
    if config.quantize_base != "none" and not (config.rank and config.export == "adapter"):
        raise InputError(
            f"a base in {config.quantize_base} cannot be trained or exported; set rank and export: adapter"
        )
    if config.tv_lpips_weight and not config.perceptual:
        raise InputError(
            f"tv_lpips_weight is {config.tv_lpips_weight}, but perceptual is empty; name the folder of stage 2, "
            "lpips, efficientnet or a file of LPIPS (squeeze), or set tv_lpips_weight: 0"
        )
    source = part_config(config.base, "transformer")
    if config.guidance is None and family_of(source).embeds_guidance(source):
        raise guidance_missing(config.base)
    if config.export == "model":
        refuse_sharding("export: model")


def export(base: Backbone, folder: Path, alone: bool = False) -> None:
    """Write a trained student in bfloat16.

    A student with a LoRA is written as base and LoRA, or as the LoRA ``alone``. A student trained as a whole is
    written as a model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if base.config.rank:
        save_lora(base.transformer, folder, write=is_main())
    if alone and is_main():
        save(base, folder)
    if alone or not is_main():
        return
    if base.config.rank:
        base.transformer.unload_lora()
    base.transformer.to(torch.bfloat16)
    base.vae.to(torch.bfloat16)
    save_base(base, folder)


def train_all(transformer: Any) -> None:
    """Make a transformer trainable in float32, except its modulation layers.

    Modulation depends only on time, guidance and prompt, so at inference it is a constant and is folded away.
    """
    transformer.float().requires_grad_(True)
    family = family_of(transformer)
    for name, part in transformer.named_modules():
        if family.is_modulation(name):
            part.requires_grad_(False)


def _distance(perceptual: str, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the perceptual distance that the option ``perceptual`` names."""
    if perceptual == "efficientnet":
        return partial(feature_distance, load_efficientnet().to(device))
    if perceptual.endswith(".safetensors"):
        return load_lpips(perceptual).to(device)
    if perceptual != "lpips":
        return partial(feature_distance, load_feature_network(perceptual).to(device))
    with main_first():  # one process downloads VGG16 if it is missing
        return load_lpips_vgg().to(device)


def _enlarged(photo: Tensor, settings: DegradationSettings, seed: int, index: int) -> Tensor:
    """Degrade a photograph (1,3,H,W), the same way at every validation, and resize it back to its own size."""
    lr = degrade(photo, settings, keyed_generator(seed, 5, index))
    return bicubic(lr, (photo.shape[-2], photo.shape[-1]))


def _upscaled(backbone: Backbone, lr_up: Tensor, device: torch.device, precision: str) -> Tensor:
    """Restore an enlarged image (1,3,H,W) tile by tile, exactly as inference does."""
    multiple = latents.pixel_multiple(backbone.vae)
    tiling = tiles.grid(lr_up.shape[-2], lr_up.shape[-1], backbone.config.tile_size, TILE_OVERLAP, multiple)
    return tiles.stream(lr_up, lambda tile: step_image(backbone, tile.to(device), precision), tiling)


@torch.no_grad()
def step_image(backbone: Backbone, lr_up: Tensor, precision: str) -> Tensor:
    """Run the one step and the post-processing of inference on an enlarged image (1,3,H,W) in [0,1]; fuse no adapter.

    Returns:
        The restored image (1,3,H,W) in [0,1].
    """
    with torch.autocast(lr_up.device.type, torch.bfloat16, enabled=precision == "bf16"):
        z_l = latents.encode(backbone.vae, lr_up.contiguous(memory_format=torch.channels_last))
        c = backbone.config
        t, guidance = c.condition
        v = mean_over_offsets(
            lambda z: velocity(backbone.transformer, z, t, backbone.prompt, guidance), z_l, c.patch_offsets
        )
        hr = latents.decode(backbone.vae, flow.one_step(z_l, v, c.t_l, c.strength))
    return postprocess(hr, lr_up, latents.pixel_multiple(backbone.vae), **c.postprocess).clamp(0, 1)
