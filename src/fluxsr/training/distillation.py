"""Run stage 5 from its recipe: base, pairs and perceptual network in, a model folder with its adapter out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fluxsr import flow
from fluxsr.backbone import latents
from fluxsr.backbone.adapter import AdapterConfig, add_lora, save_lora
from fluxsr.backbone.licence import licence_of, write_notice
from fluxsr.backbone.loading import Backbone, best_device, load_base, save_base
from fluxsr.backbone.velocity import velocity
from fluxsr.degradation import DegradationSettings, degrade, load_settings
from fluxsr.errors import InputError
from fluxsr.imaging import tiles
from fluxsr.imaging.resize import bicubic
from fluxsr.losses.features import feature_distance
from fluxsr.pairs.store import PairStore, TeacherPair
from fluxsr.training import loop, pictures
from fluxsr.training.config import DistillConfig
from fluxsr.training.dataset import Ahead, PairCrops, keyed_generator, read_photographs
from fluxsr.training.stages import encode_photos, load_feature_network
from fluxsr.training.steps.distill import Batch, DistillStage
from fluxsr.training.validation import spectral_scores, validation_photographs

TILE_OVERLAP = 64  # pixels, as the pipeline's default


def train_distill(config: DistillConfig, out: Path) -> None:
    """Train the student's LoRA and write ``out/model``, a folder that ``--model`` takes."""
    device = best_device(config.run.device)
    # The frozen parts are stored in bfloat16: holding them so changes no value and spares a cast per call.
    dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
    base = load_base(config.base, device=device, dtype=dtype)
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
        add_lora(base.transformer, config.rank, config.alpha)
    else:
        train_all(base.transformer)
    settings = load_settings(config.degradation)
    batches = Ahead(_encoded(_crops(config, base, settings), base, device))
    distance = _distance(config.perceptual, device) if config.tv_lpips_weight else None
    stage = DistillStage(config, base, batches, distance, device)
    photos = [photo[None] / 255 for photo in validation_photographs(config.data)]
    spoilt = [_enlarged(photo, settings, config.run.seed, index) for index, photo in enumerate(photos)]

    def validate(step: int, _path: Path) -> dict[str, float]:
        made = [_upscaled(base, image, device) for image in spoilt]
        rows = [[image[0] * 255 for image in images[:6]] for images in (spoilt, made, photos)]
        pictures.sheet(out / f"validation-{step:06d}.png", rows)
        pictures.curves(out)
        return spectral_scores(made, photos)

    loop.run(stage, config.run, out, validate)
    export(base, Path(out, "model"))
    # The teacher's terms go with what was made from it.
    teacher = PairStore(config.pairs).manifest().get("licence") if config.pairs else None
    write_notice(Path(out, "model"), licence_of(config.base, base.transformer.config), teacher)


def export(base: Backbone, folder: Path) -> None:
    """Write a trained student in bfloat16: the base and its LoRA beside it, or the whole transformer."""
    folder.mkdir(parents=True, exist_ok=True)
    if base.config.rank:
        save_lora(base.transformer, folder)
        base.transformer.unload_lora()
    base.transformer.to(torch.bfloat16)
    base.vae.to(torch.bfloat16)
    save_base(base, folder)


def train_all(transformer: Any) -> None:
    """Make all of a transformer trainable but its modulation, in float32.

    Modulation sees time, guidance and prompt alone: at inference it is a constant, folded away.
    """
    transformer.float().requires_grad_(True)
    for name, part in transformer.named_modules():
        if (
            name == "time_text_embed"
            or (name.split(".")[-2:-1] or [""])[0].startswith("norm")
            and name.endswith("linear")
        ):
            part.requires_grad_(False)


def _crops(config: DistillConfig, base: Backbone, settings: DegradationSettings) -> PairCrops:
    """Photographs (or decoded samples) with z_0 and eps; the degradation is drawn afresh at every step."""
    by_name = dict(zip(*read_photographs(config.data.shards, config.data.limit), strict=True))
    photos, pairs = [], []
    for pair in _pairs(config, base, by_name):
        photo = pair.cut(by_name)
        if photo is None:  # sampled by the teacher: the image is what its latent decodes to
            with torch.no_grad():
                z_0 = pair.z_0[None].float().to(next(base.vae.parameters()).device)
                photo = (latents.decode(base.vae, z_0)[0].clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        photos.append(photo)
        pairs.append(torch.stack([pair.z_0, pair.eps]))
    if not photos:
        raise InputError(f"no pairs in {config.pairs or 'pairs (it is empty)'}; run `fluxsr pairs invert` first")
    run = config.run
    return PairCrops(photos, pairs, run.crop, run.batch, run.seed, lambda hr, g: degrade(hr, settings, g))


def _pairs(config: DistillConfig, base: Backbone, photos: dict[str, Tensor]) -> Iterator[TeacherPair]:
    """The teacher's pairs, or, where fresh noise takes the place of its eps, photographs and their latents alone."""
    if config.eps_source == "fresh" and not config.pairs:
        for name, photo in photos.items():
            (z_0,) = encode_photos(base.vae, [photo])
            yield TeacherPair(name, z_0, torch.zeros_like(z_0))
        return
    store = PairStore(config.pairs)
    sampled = store.manifest()["mode"] == "sample"
    for pair in store:
        if sampled or pair.cut(photos) is not None:
            yield pair
        elif not config.data.limit:
            raise InputError(f"pair '{pair.name}' has no photograph in data.shards; pairs and shards must match")


def _encoded(crops: PairCrops, base: Backbone, device: torch.device) -> Callable[[int], Batch]:
    """Batches with the LR partner's latent in place of its pixels."""

    @torch.no_grad()
    def batch(step: int) -> Batch:
        x_0, lr_up, z_0, eps = crops(step)
        lr_up = lr_up.to(device, memory_format=torch.channels_last)
        return x_0, latents.encode(base.vae, lr_up), z_0, eps

    return batch


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


def _upscaled(backbone: Backbone, lr_up: Tensor, device: torch.device) -> Tensor:
    """An enlarged image (1,3,H,W) restored in the tiles of inference, so that validation sees what users will."""
    tiling = tiles.grid(lr_up.shape[-2], lr_up.shape[-1], backbone.config.tile_size, TILE_OVERLAP)
    return tiles.stream(lr_up, lambda tile: step_image(backbone, tile.to(device)), tiling)


@torch.no_grad()
def step_image(backbone: Backbone, lr_up: Tensor) -> Tensor:
    """The one step on an enlarged image (1,3,H,W) in [0,1], before any adapter is fused."""
    with torch.autocast(lr_up.device.type, torch.bfloat16):
        z_l = latents.encode(backbone.vae, lr_up.contiguous(memory_format=torch.channels_last))
        v = velocity(backbone.transformer, z_l, backbone.config.t_l, backbone.prompt, backbone.config.guidance)
        return latents.decode(backbone.vae, flow.one_step(z_l, v, backbone.config.t_l)).clamp(0, 1)
