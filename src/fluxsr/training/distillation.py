"""Run stage 5 from its recipe: base, pairs and perceptual network in, a model folder with its adapter out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fluxsr import flow
from fluxsr.backbone import latents
from fluxsr.backbone.adapter import TARGETS, AdapterConfig, add_lora, save_lora
from fluxsr.backbone.loading import Backbone, load_base, save, save_base
from fluxsr.backbone.velocity import velocity
from fluxsr.degradation import PRESETS, DegradationSettings, degrade
from fluxsr.errors import InputError
from fluxsr.evaluation.diagnostics import band_db, grid_db, grid_excess, peak16
from fluxsr.evaluation.metrics import psnr_y, ssim_y
from fluxsr.imaging.resize import bicubic
from fluxsr.losses.features import feature_distance
from fluxsr.pairs.store import PairStore
from fluxsr.training import loop, pictures
from fluxsr.training.config import DistillConfig
from fluxsr.training.dataset import PairCrops, keyed_generator, read_photographs
from fluxsr.training.processes import is_main, refuse_sharding, training_device
from fluxsr.training.stages import load_feature_network, whole_tokens
from fluxsr.training.steps.distill import DistillStage


def train_distill(config: DistillConfig, out: Path) -> None:
    """Train the student's LoRA and write ``out/model``, a folder that ``--model`` takes."""
    _check(config)
    device = training_device(config.run.device)
    # The frozen parts are stored in bfloat16: holding them so changes no value and spares a cast per call.
    dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
    base = load_base(config.base, device, dtype, config.quantize_base, config.prompt)
    base.config = AdapterConfig(
        t_l=config.t_l,
        guidance=config.guidance,
        tile_size=config.tile_size,
        rank=config.rank,
        alpha=config.alpha,
        base=config.name,
    )
    if config.rank:
        torch.manual_seed(config.run.seed)  # initial LoRA weights; peft takes no generator
        add_lora(base.transformer, config.rank, config.alpha, config.targets or TARGETS)
    else:
        base.transformer.float().requires_grad_(True)
    _recompute(base, config)
    settings = _preset(config.degradation)
    stage = DistillStage(config, base, _crops(config, base, settings), _distance(config.perceptual, device), device)
    shown = read_photographs(config.data.validation)[1] if config.data.validation else []
    photos = [whole_tokens(photo)[None] / 255 for photo in shown]
    spoilt = [_enlarged(photo, settings, config.run.seed, index) for index, photo in enumerate(photos)]

    def validate(step: int, _path: Path) -> dict[str, float]:
        made = [step_image(base, image.to(device)).cpu() for image in spoilt]
        rows = [[image[0] * 255 for image in images[:6]] for images in (spoilt, made, photos)]
        pictures.sheet(out / f"validation-{step:06d}.png", rows)
        pictures.curves(out)
        return _scores(made, photos)

    loop.run(stage, config.run, out, validate if photos else None, recipe=config)
    export(base, Path(out, "model"), alone=config.export == "adapter")


def _check(config: DistillConfig) -> None:
    """What cannot work is said before a base of 24 GB is read."""
    if config.export == "adapter" and not config.rank:
        raise InputError("export is adapter, but rank is 0: there is none; set export: model")
    if config.quantize_base != "none" and not (config.rank and config.export == "adapter"):
        raise InputError(
            f"a base in {config.quantize_base} is neither trained nor exported; set rank and export: adapter"
        )
    if config.export == "model":
        refuse_sharding("export: model")


def _recompute(base: Backbone, config: DistillConfig) -> None:
    """Gradient checkpointing of transformer and autoencoder, where it is asked for."""
    if config.run.gradient_checkpointing:
        base.transformer.enable_gradient_checkpointing()
    if config.run.decoder_checkpointing:
        try:
            base.vae.enable_gradient_checkpointing()
        except ValueError as error:
            name = type(base.vae).__name__
            raise InputError(f"{name} has no checkpointing; set run.decoder_checkpointing: false") from error


def export(base: Backbone, folder: Path, alone: bool = False) -> None:
    """Write a trained student in bfloat16: base and LoRA, the LoRA ``alone``, or without one the whole transformer."""
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


def _preset(name: str) -> DegradationSettings:
    if name not in PRESETS:
        raise InputError(f"degradation '{name}' is not known; choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def _crops(config: DistillConfig, base: Backbone, settings: DegradationSettings) -> PairCrops:
    """Photographs (or decoded samples) with their eps; the degradation is drawn afresh at every step."""
    shards = config.data.shards  # sampled pairs need no photographs
    by_name = dict(zip(*read_photographs(shards, config.data.limit), strict=True)) if shards else {}
    store = PairStore(config.pairs)
    sampled = store.manifest()["mode"] == "sample"
    photos, eps = [], []
    for pair in store:
        photo = by_name.get(pair.name)
        if photo is None and not sampled:
            if config.data.limit:
                continue
            raise InputError(f"pair '{pair.name}' has no photograph in data.shards; pairs and shards must match")
        if photo is None:  # sampled by the teacher: the image is what its latent decodes to
            with torch.no_grad():
                z_0 = pair.z_0[None].float().to(next(base.vae.parameters()).device)
                photo = (latents.decode(base.vae, z_0)[0].clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        photos.append(photo)
        eps.append(pair.eps)
    if not photos:
        raise InputError(f"no pairs in {config.pairs or 'pairs (it is empty)'}; run `fluxsr pairs invert` first")
    settings = replace(settings, resize_groups=1)  # PairCrops makes the groups
    device = next(base.vae.parameters()).device
    return PairCrops(
        photos, eps, config.run.crop, config.run.seed, lambda hr, g: degrade(hr, settings, g), device=device
    )


def _distance(perceptual: str, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    if perceptual != "lpips":
        return partial(feature_distance, load_feature_network(perceptual).to(device))
    try:
        import lpips
    except ImportError as error:
        raise InputError("perceptual is 'lpips'; install it with `pip install 'fluxsr[lpips]'`") from error
    return lpips.LPIPS(net="vgg", verbose=False).requires_grad_(False).to(device)


def _enlarged(photo: Tensor, settings: DegradationSettings, seed: int, index: int) -> Tensor:
    """A photograph (1,3,H,W) degraded, the same at every validation, and enlarged again."""
    lr = degrade(photo, settings, keyed_generator(seed, 5, index))
    return bicubic(lr, (photo.shape[-2], photo.shape[-1]))


@torch.no_grad()
def step_image(backbone: Backbone, lr_up: Tensor) -> Tensor:
    """The one step on a whole enlarged image (1,3,H,W) in [0,1], before any adapter is fused."""
    with torch.autocast(lr_up.device.type, torch.bfloat16):
        z_l = latents.encode(backbone.vae, lr_up.contiguous(memory_format=torch.channels_last))
        v = velocity(backbone.transformer, z_l, backbone.config.t_l, backbone.prompt, backbone.config.guidance)
        return latents.decode(backbone.vae, flow.one_step(z_l, v, backbone.config.t_l)).clamp(0, 1)


def _scores(made: list[Tensor], photos: list[Tensor]) -> dict[str, float]:
    """Means over images (1,3,H,W) in [0,1]: fidelity, and the spectrum against the photograph's."""
    rows, excess = [], []
    for x, y in zip(made, photos, strict=True):
        x = (x * 255).round() / 255
        excess.append(grid_excess(x))
        grids = grid_db(excess[-1])
        rows.append([psnr_y(x, y), ssim_y(x, y), *band_db(x, y), grids["grid8"], grids["grid16"]])
    means = [sum(float(value) for value in column) / len(rows) for column in zip(*rows, strict=True)]
    names = ("psnr", "ssim", "mid_db", "hf_db", "grid8", "grid16")
    scores = {f"val/{name}": round(mean, 4) for name, mean in zip(names, means, strict=True)}
    return scores | {"val/peak16": round(peak16(torch.cat(excess)), 3)}
