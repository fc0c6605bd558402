"""Batches of stage 5: teacher pairs and photographs, degraded and encoded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fluxsr.backbones import latents
from fluxsr.degradation import DegradationSettings, degrade_samples
from fluxsr.errors import InputError
from fluxsr.imaging.photographs import Photograph, list_photographs
from fluxsr.pairs.store import PairStore, TeacherPair
from fluxsr.training.ahead import Ahead, AheadInProcesses
from fluxsr.training.config import DistillConfig, RestorerConfig
from fluxsr.training.dataset import PairCrops
from fluxsr.training.file_pairs import file_pairs
from fluxsr.training.processes import main_first
from fluxsr.training.steps.distill import Batch, encode_batch, encodes_in_step
from fluxsr.training.targets import map_targets, write_targets

Config: TypeAlias = DistillConfig | RestorerConfig


def prepared(config: DistillConfig, vae: Any, pairs: PairCrops) -> Callable[[int, Sequence[int]], Batch]:
    """Return a function from a step and its samples to the batch (x_0, z_l, z_0, eps).

    The batches of the next steps are prepared in the background while the current step trains.
    """
    workers, device = config.run.workers, next(vae.parameters()).device
    crops: Callable[[int, Sequence[int]], Batch] = pairs
    if workers:
        crops = AheadInProcesses(pairs, workers, pin_memory=device.type == "cuda")

    @torch.no_grad()
    def encoded(step: int, samples: Sequence[int]) -> Batch:
        x_0, lr_up, z_0, eps = crops(step, samples)
        if encodes_in_step(config, vae):
            return x_0, lr_up, z_0, eps
        # Autocast is local to a thread, so it is set here: the result must not depend on the thread that encodes.
        with torch.autocast(device.type, torch.bfloat16, enabled=config.run.precision == "bf16"):
            return encode_batch(vae, x_0, lr_up, z_0, eps)

    return encoded if workers else Ahead(encoded)


@contextmanager
def crops_of_run(config: Config, vae: Any, settings: DegradationSettings, out: Path) -> Iterator[PairCrops]:
    """Yield ``pair_crops`` of a run, whose targets lie in its folder meanwhile."""
    try:
        yield pair_crops(config, vae, settings, out / ".targets")
    finally:
        shutil.rmtree(out / ".targets", ignore_errors=True)


def pair_crops(config: Config, vae: Any, settings: DegradationSettings, folder: Path) -> PairCrops:
    """Return crops of the targets with z_0 and eps; every step draws a new degradation.

    One process of each machine writes the targets into a folder, which must be on its own disk or common to all.
    """
    run, device = config.run, next(vae.parameters()).device
    side = run.crop + 2 * PairCrops.MARGIN
    if side % settings.scale:
        raise InputError(
            f"a crop and its margin are {side} pixels, no multiple of the scale {settings.scale}; change run.crop"
        )
    with main_first() as first:
        if first:
            write_targets(folder, _targets(config, vae, settings.scale))
        targets = map_targets(folder)
    if not targets.photos and not (targets.hr and config.paired_share == 1):
        raise _no_targets(config)
    return PairCrops(
        targets,
        run.crop,
        run.seed,
        run.batch,
        Degradation(settings),
        config.degradation_group,
        torch.device("cpu") if run.workers else device,
        latents.latent_pixels(vae),
        config.paired_share if targets.hr else 0.0,
    )


def _targets(config: Config, vae: Any, scale: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the name of every target and its tensors, as in `Targets`; the next one is read when it is asked for."""
    shards, device = config.data.shards, next(vae.parameters()).device  # sampled pairs need no photographs
    photos = {photo.name: photo for photo in list_photographs(shards, config.data.limit)} if shards else {}
    read = lru_cache(1)(Photograph.read)  # neighbouring pairs may be crops of one photograph
    if _without_pairs(config):
        yield from ((name, {"photos": photo.read()}) for name, photo in photos.items())
    for pair in () if _without_pairs(config) else _pairs(config, photos):
        name = pair.photo or pair.name
        photo = pair.cut({name: read(photos[name])} if name in photos else {})
        if photo is None:  # the teacher sampled this pair, so its image is the decoded latent
            with torch.no_grad():
                decoded = latents.decode(vae, pair.z_0[None].float().to(device))[0]
            photo = (decoded.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        yield pair.name, {"photos": photo, "latents": torch.stack([pair.z_0, pair.eps]).half()}
    if config.paired:
        for stem, (lr, hr) in file_pairs(config.paired, scale).items():
            yield stem, {"lr": lr, "hr": hr}


def _no_targets(config: Config) -> InputError:
    """Return the error for a recipe without targets; it says where they were lost."""
    if _without_pairs(config):
        return InputError(
            "data.shards is empty; name the photographs to train on, or set pairs, or paired with paired_share: 1"
        )
    if not config.pairs:
        return InputError("pairs is empty; name the folder that `fluxsr pairs` wrote")
    store = PairStore(config.pairs)
    count, dropped = store.count(), len(store.dropped())
    if not count:
        return InputError(
            f"no pairs in {store.folder}; make them with `fluxsr pairs generate` or `fluxsr pairs invert`"
        )
    if dropped >= count:
        return InputError(
            f"`fluxsr pairs screen` dropped all {count} pairs of {store.folder}; screen them again with wider limits, "
            "or delete screened.json there"
        )
    return InputError(
        f"of {count} pairs in {store.folder}, `fluxsr pairs screen` dropped {dropped}, and the photographs of the "
        f"others are not among the first {config.data.limit} of data.shards; raise data.limit"
    )


@dataclass(frozen=True)
class Degradation:
    """``degrade_samples`` with fixed settings, as a callable that can be pickled."""

    settings: DegradationSettings

    def __call__(self, hr: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Degrade images (B,3,H,W) to low resolution, with one generator for each group of images."""
        return degrade_samples(hr, self.settings, generators)


def _without_pairs(config: Config) -> bool:
    """Return whether the stage trains on photographs alone, with fresh noise instead of the teacher's eps."""
    return config.eps_source == "fresh" and not config.pairs


def _pairs(config: Config, photos: Mapping[str, Photograph]) -> Iterator[TeacherPair]:
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
        if sampled or (pair.photo or pair.name) in photos:
            yield pair
        elif not config.data.limit:
            raise InputError(f"pair '{pair.name}' has no photograph in data.shards; pairs and shards must match")
