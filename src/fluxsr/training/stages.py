"""Run a stage from its recipe: read what it needs, train, validate, export. One function per stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fluxsr.backbone import latents
from fluxsr.backbone.loading import Backbone, best_device, load_base, load_part, save_base
from fluxsr.errors import InputError
from fluxsr.losses.features import FeatureNetwork
from fluxsr.pairs.invert import integrate_windows, round_trip
from fluxsr.pairs.store import PairStore
from fluxsr.training import loop, pictures
from fluxsr.training.config import AutoencoderConfig, PairsConfig, PerceptualConfig, TeacherConfig
from fluxsr.training.dataset import PhotoCrops, keyed_generator, read_photographs
from fluxsr.training.processes import is_main, refuse_sharding, training_device
from fluxsr.training.steps.autoencoder import AutoencoderStage, fit_scale
from fluxsr.training.steps.perceptual import TARGETS, PerceptualStage
from fluxsr.training.steps.teacher import TeacherStage


def train_autoencoder(config: AutoencoderConfig, out: Path) -> None:
    """Train stage 1 and write ``out/vae`` in diffusers layout."""
    refuse_sharding("the autoencoder")
    device = training_device(config.run.device)
    _, photos = read_photographs(config.data.shards, config.data.limit)
    validation = [whole_tokens(photo) for photo in read_photographs(config.data.validation)[1]]
    stage = AutoencoderStage(config, photos, device)

    def validate(step: int, _path: Path) -> dict[str, float]:
        made = [_reconstruct(stage.vae, image.to(device)) for image in validation]
        pictures.sheet(out / "reconstructions.png", [validation[:6], made[:6]])
        pictures.curves(out)
        scores = [pictures.psnr(a, b) for a, b in zip(made, validation, strict=True)]
        return {"val/psnr": round(sum(scores) / len(scores), 3)}

    loop.run(stage, config.run, out, validate, recipe=config)
    if not is_main():
        return
    crops = PhotoCrops(photos, config.run.crop, config.run.seed)
    scale = fit_scale(stage.vae, [crops(k, range(32)).to(device) for k in range(8)])
    stage.vae.register_to_config(scaling_factor=scale)
    stage.vae.to(torch.bfloat16).save_pretrained(out / "vae")


def train_perceptual(config: PerceptualConfig, out: Path) -> None:
    """Train stage 2 and write ``out/features.safetensors`` and ``out/features.json``."""
    _, photos = read_photographs(config.data.shards, config.data.limit)
    refuse_sharding("the perceptual network")
    stage = PerceptualStage(config, photos, training_device(config.run.device))
    loop.run(stage, config.run, out, lambda step, path: pictures.curves(out), recipe=config)
    if not is_main():
        return
    save_file({k: v.contiguous() for k, v in stage.network.state_dict().items()}, out / "features.safetensors")
    (out / "features.json").write_text(json.dumps({"widths": list(config.widths)}), encoding="utf-8")


def load_feature_network(folder: str | Path) -> FeatureNetwork:
    """The network that ``train_perceptual`` wrote, frozen."""
    widths = json.loads((Path(folder) / "features.json").read_text(encoding="utf-8"))["widths"]
    network = FeatureNetwork(widths, TARGETS)
    network.load_state_dict(load_file(Path(folder) / "features.safetensors"))
    return network.requires_grad_(False).eval().to(memory_format=torch.channels_last)


def train_teacher(config: TeacherConfig, out: Path) -> None:
    """Train stage 3 and write ``out/base``: transformer, autoencoder and fixed prompt."""
    refuse_sharding("the teacher")
    device = training_device(config.run.device)
    _, photos = read_photographs(config.data.shards, config.data.limit)
    vae = load_part(Path(config.autoencoder), "vae", torch.float32).to(device, memory_format=torch.channels_last)
    stage = TeacherStage(config, encode_photos(vae, photos), device)
    loop.run(stage, config.run, out, lambda step, path: pictures.curves(out), recipe=config)
    if not is_main():
        return
    save_base(Backbone(stage.transformer.to(torch.bfloat16), vae.to(torch.bfloat16), stage.prompt), out / "base")


def encode_photos(vae: Any, photos: list[Tensor]) -> list[Tensor]:
    """Normalised latents (C,h,w), float16, of photographs (3,H,W) uint8; sides are cut to whole tokens."""
    device, found = next(vae.parameters()).device, []
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        for photo in photos:
            image = whole_tokens(photo)[None].to(device).float() / 255
            found.append(latents.encode(vae, image.contiguous(memory_format=torch.channels_last))[0].half())
    return found


def make_pairs(config: PairsConfig, out: Path) -> None:
    """Stage 4: write shards of pairs, a manifest with the round-trip error, and a contact sheet. Resumable.

    Raises:
        InputError: ``out`` holds pairs of other settings, or photographs that the window does not divide.
    """
    device = best_device(config.device)
    base = load_base(config.base, device=device, dtype=torch.float32)
    store = PairStore(out)
    names, photos = read_photographs(config.data.shards, config.count or config.data.limit)
    z = encode_photos(base.vae, photos)
    _check_sizes(z, config.window)
    count = config.count or len(z)
    if config.mode == "sample" and not config.count:
        raise InputError("count is 0; sampling needs the number of pairs to make")
    if config.mode == "invert" and count > len(z):
        raise InputError(f"count is {count}, but there are {len(z)} photographs to invert")
    settings = {key: getattr(config, key) for key in ("mode", "steps", "solver", "window", "shard", "seed", "base")}
    _claim(store, settings | {"count": count})
    rising = [k / config.steps for k in range(config.steps + 1)]
    times = rising if config.mode == "invert" else rising[::-1]

    def carried(start: Tensor) -> Tensor:
        parts = [
            integrate_windows(base.transformer, base.prompt, part.to(device), times, config.window, config.solver)
            for part in start.split(4)
        ]
        return torch.cat(parts).cpu()

    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"), loop.progress() as bar:
        task = bar.add_task("pairs", total=count)
        for shard, first in enumerate(range(0, count, config.shard)):
            chosen = range(first, min(first + config.shard, count))
            if store.has_shard(shard):
                pass
            elif config.mode == "invert":
                z_0 = torch.stack([z[k].float() for k in chosen])
                store.write_shard(shard, [names[k] for k in chosen], z_0, carried(z_0))
            else:
                draws = [torch.randn(z[0].shape, generator=keyed_generator(config.seed, k)) for k in chosen]
                eps = torch.stack(draws)
                store.write_shard(shard, [f"seed-{k}" for k in chosen], carried(eps), eps)
            bar.update(task, completed=chosen[-1] + 1)
        sample = torch.stack([part.float() for part in z[: config.check]]).to(device)
        generator = keyed_generator(config.seed, 3, 1)
        own, fresh = round_trip(
            base.transformer, base.prompt, sample, rising, config.window, generator, solver=config.solver
        )
        errors = {"round_trip_rmse": round(own, 4), "fresh_noise_rmse": round(fresh, 4)}
        store.write_manifest(settings | {"count": count} | errors)
        _contact_sheet(base, store, out)
    print(f"round trip: rmse {own:.4f} from the teacher's eps, {fresh:.4f} from fresh noise (latents have rms 1)")


def _check_sizes(z: list[Tensor], window: int) -> None:
    shapes = {tuple(latent.shape[1:]) for latent in z}
    if len(shapes) > 1 or any(side % window for side in next(iter(shapes))):
        found = ", ".join(f"{8 * h}x{8 * w}" for h, w in sorted(shapes)[:4])
        raise InputError(
            f"photographs of {found} pixels; pairs need one size that is a multiple of {8 * window} (window {window})"
        )


def _claim(store: PairStore, settings: dict[str, Any]) -> None:
    """Write the settings into the manifest before the first shard; shards of other settings are never mixed in."""
    if (store.folder / "manifest.json").is_file():
        found = store.manifest()
        other = [key for key in settings if found.get(key) != settings[key]]
        if other:
            changes = ", ".join(f"{key} {found.get(key)} there, {settings[key]} here" for key in other)
            raise InputError(f"{store.folder} holds pairs of other settings ({changes}); give another --out")
    else:
        store.folder.mkdir(parents=True, exist_ok=True)
        store.write_manifest(settings)


def whole_tokens(photo: Tensor) -> Tensor:
    """A photograph (3,H,W) cut to sides that are multiples of 16, as autoencoder and packing need."""
    height, width = (side // 16 * 16 for side in photo.shape[1:])
    return photo[:, :height, :width]


@torch.no_grad()
def _contact_sheet(base: Backbone, store: PairStore, out: Path) -> None:
    pairs = [pair for pair, _ in zip(store, range(6), strict=False)]
    device = next(base.vae.parameters()).device
    clean = [latents.decode(base.vae, pair.z_0[None].float().to(device))[0].cpu() * 255 for pair in pairs]
    noise = [(pair.eps[:3].float() * 40 + 128).repeat_interleave(8, 1).repeat_interleave(8, 2) for pair in pairs]
    pictures.sheet(out / "contact_sheet.png", [clean, noise])


@torch.no_grad()
def _reconstruct(vae: Any, image: Tensor) -> Tensor:
    """Encode and decode a photograph (3,H,W) uint8; the same range, float."""
    with torch.autocast(image.device.type, torch.bfloat16):
        x = image[None].float() / 127.5 - 1
        return vae(x.contiguous(memory_format=torch.channels_last)).sample[0].float().cpu() * 127.5 + 127.5
