"""Batches of stage 5: teacher pairs and photographs, degraded and encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fluxsr.backbones import latents
from fluxsr.degradation import DegradationSettings, degrade_samples
from fluxsr.errors import InputError
from fluxsr.imaging.photographs import read_photographs
from fluxsr.pairs.store import PairStore, TeacherPair
from fluxsr.training.ahead import Ahead, AheadInProcesses
from fluxsr.training.config import DistillConfig, RestorerConfig
from fluxsr.training.dataset import PairCrops
from fluxsr.training.file_pairs import file_pairs
from fluxsr.training.steps.distill import Batch


def prepared(config: DistillConfig, vae: Any, pairs: PairCrops) -> Callable[[int, Sequence[int]], Batch]:
    """Return a function from a step and its samples to the batch (x_0, z_l, z_0, eps).

    The batches of the next steps are prepared in the background while the current step trains.
    """
    workers, device = config.run.workers, next(vae.parameters()).device
    crops: Callable[[int, Sequence[int]], Batch] = pairs
    if workers:
        pairs.share_memory()
        crops = AheadInProcesses(pairs, workers, pin_memory=device.type == "cuda")

    @torch.no_grad()
    def encoded(step: int, samples: Sequence[int]) -> Batch:
        x_0, lr_up, z_0, eps = crops(step, samples)
        lr_up = lr_up.to(device, memory_format=torch.channels_last)
        # Autocast is local to a thread, so it is set here: the result must not depend on the thread that encodes.
        with torch.autocast(device.type, torch.bfloat16, enabled=config.run.precision == "bf16"):
            z_l = latents.encode_lr(vae, lr_up)
            if _without_pairs(config):
                z_0 = latents.encode(vae, x_0.to(device, memory_format=torch.channels_last))
                eps = torch.zeros_like(z_0)  # the step draws it
        return x_0, z_l, z_0, eps

    return encoded if workers else Ahead(encoded)


def pair_crops(config: DistillConfig, vae: Any, settings: DegradationSettings) -> PairCrops:
    """Return crops of photographs (or decoded samples) with z_0 and eps; every step draws a new degradation."""
    shards, device = config.data.shards, next(vae.parameters()).device  # sampled pairs need no photographs
    spoilt_on = torch.device("cpu") if config.run.workers else device
    by_name = dict(zip(*read_photographs(shards, config.data.limit), strict=True)) if shards else {}
    alone = _without_pairs(config)
    photos, pairs = list(by_name.values()) if alone else [], []
    for pair in () if alone else _pairs(config, by_name):
        photo = pair.cut(by_name)
        if photo is None:  # the teacher sampled this pair, so its image is the decoded latent
            with torch.no_grad():
                decoded = latents.decode(vae, pair.z_0[None].float().to(device))[0]
            photo = (decoded.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        photos.append(photo)
        pairs.append(torch.stack([pair.z_0, pair.eps]))
    if not photos and not alone:
        raise InputError(f"no pairs in {config.pairs or 'pairs (it is empty)'}; run `fluxsr pairs invert` first")
    return crops_of(config, photos, pairs, settings, spoilt_on, latents.latent_pixels(vae))


def crops_of(
    config: DistillConfig | RestorerConfig,
    photos: list[Tensor],
    pairs: list[Tensor],
    settings: DegradationSettings,
    spoilt_on: torch.device,
    pixels: int,
) -> PairCrops:
    """Return crops of photographs, with or without teacher pairs, and of the pairs of files in ``config.paired``.

    Args:
        config: recipe of the stage.
        photos: photographs (3,H,W), uint8.
        pairs: z_0 and eps of each photograph (2,C,h,w), or none.
        settings: degradation of the photographs.
        spoilt_on: device that degrades them.
        pixels: side of a latent in pixels.

    Raises:
        InputError: there are no photographs, or the crop does not fit.
    """
    files = list(file_pairs(config.paired, settings.scale).values()) if config.paired else []
    side = config.run.crop + 2 * PairCrops.MARGIN
    if side % settings.scale:
        raise InputError(
            f"a crop and its margin are {side} pixels, no multiple of the scale {settings.scale}; change run.crop"
        )
    if not photos and not (files and config.paired_share == 1):
        raise InputError(
            "data.shards is empty; name the photographs to train on, or set pairs, or paired with paired_share: 1"
        )
    run, group, share = config.run, config.degradation_group, config.paired_share if files else 0.0
    degradation = Degradation(settings)
    return PairCrops(photos, pairs, run.crop, run.seed, run.batch, degradation, group, spoilt_on, pixels, files, share)


@dataclass(frozen=True)
class Degradation:
    """``degrade_samples`` with fixed settings, as a callable that can be pickled."""

    settings: DegradationSettings

    def __call__(self, hr: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Degrade images (B,3,H,W) to low resolution, with one generator for each group of images."""
        return degrade_samples(hr, self.settings, generators)


def _without_pairs(config: DistillConfig) -> bool:
    """Return whether the stage trains on photographs alone, with fresh noise instead of the teacher's eps."""
    return config.eps_source == "fresh" and not config.pairs


def _pairs(config: DistillConfig, photos: dict[str, Tensor]) -> Iterator[TeacherPair]:
    """Yield the teacher's pairs whose photographs are there."""
    store = PairStore(config.pairs)
    manifest = store.manifest()
    found, sampled = store.count(), manifest["mode"] == "sample"
    expected = manifest.get("count", found)
    if found < expected:  # the first part of a store is a different training set
        raise InputError(
            f"{store.folder} holds {found} of {expected} pairs; run the command that made the store again to finish it"
        )
    dropped = store.dropped()
    for pair in store:
        if pair.name in dropped:
            continue
        if sampled or pair.cut(photos) is not None:
            yield pair
        elif not config.data.limit:
            raise InputError(f"pair '{pair.name}' has no photograph in data.shards; pairs and shards must match")
