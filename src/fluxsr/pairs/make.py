"""Fill a store with sampled or inverted pairs. The work is resumable and can be divided among processes.

Processes do not communicate. Each makes every n-th shard, the manifest ensures equal settings, and shards are written
atomically. A process that dies loses only its unfinished shard and does not block the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fluxsr.backbones import latents
from fluxsr.backbones.device import best_device
from fluxsr.backbones.families import family_of
from fluxsr.backbones.licence import licence_of
from fluxsr.backbones.loading import load_autoencoder
from fluxsr.backbones.parts import part_config, skeleton
from fluxsr.errors import InputError
from fluxsr.pairs import manifest as manifests
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.generate import sample_pairs, sample_specs
from fluxsr.pairs.invert import invert_pairs, invert_specs
from fluxsr.pairs.pair_specs import PairSpec, own_device, rank_and_world_size, shards
from fluxsr.pairs.show import contact_sheet
from fluxsr.pairs.store import PairStore, TeacherPair
from fluxsr.pairs.teacher import load_teacher
from fluxsr.progress import progress


def _latent_pixels(base: str) -> int:
    """Return the side of a latent in pixels for the base's autoencoder, without loading its weights."""
    return latents.latent_pixels(skeleton(part_config(base, "vae"), "vae"))


def make_pairs(config: PairsConfig, out: Path) -> None:
    """Write the missing shards of this process. The process that completes the store adds summary and contact sheet.

    Raises:
        InputError: options that do not fit, or a store with other settings.
    """
    _check(config)
    rank, world = rank_and_world_size()
    device = best_device(own_device(config.device))
    specs = sample_specs(config) if config.mode == "sample" else invert_specs(config, _latent_pixels(config.base))
    parts = shards(len(specs), config.shard)
    store = PairStore(out)
    settings = manifests.settings_of(config, specs)
    manifests.refuse_early(store, settings)
    missing = [k for k in range(rank, len(parts), world) if not store.has_shard(k)]
    if missing:
        _check_window(config)
        store.create()
        needed = [specs[k].prompt for part in missing for k in parts[part]]
        teacher = load_teacher(config, needed, device, out)
        licence = licence_of(config.base, teacher.transformer.config, config.licence)
        manifests.claim(store, manifests.full_manifest(config, settings, teacher, licence))
        vae = load_autoencoder(config.base, device) if config.mode == "invert" else None

        def make(chosen: Sequence[PairSpec]) -> list[TeacherPair]:
            return sample_pairs(teacher, chosen) if vae is None else invert_pairs(teacher, vae, chosen)

        made_with = manifests.versions() | {"device": manifests.device_name(device)}
        own = sum(len(parts[k]) for k in range(rank, len(parts), world))
        _fill(store, make, [[specs[i] for i in parts[k]] for k in missing], missing, made_with, own, rank)
    _conclude(config, store, len(parts), device, rank)


def _check(config: PairsConfig) -> None:
    for name in ("steps", "window", "batch", "shard", "text_tokens"):
        if getattr(config, name) < 1:
            raise InputError(f"{name} is {getattr(config, name)}; it must be at least 1")
    if config.seed < 0:
        raise InputError(f"seed is {config.seed}; it must not be negative")


def _check_window(config: PairsConfig) -> None:
    patch = family_of(part_config(config.base, "transformer")).patch
    if config.window % patch:
        raise InputError(
            f"window is {config.window}; the teacher packs {patch}x{patch} latents, so {patch} must divide it"
        )


def _fill(
    store: PairStore,
    make: Callable[[Sequence[PairSpec]], list[TeacherPair]],
    work: list[list[PairSpec]],
    indices: list[int],
    made_with: dict[str, str],
    own: int,
    rank: int,
) -> None:
    """Make and write shards. The first process shows a progress bar over its ``own`` pairs."""
    done = own - sum(map(len, work))
    with torch.no_grad(), progress(disable=rank > 0) as bar:
        task = bar.add_task(f"pairs in {store.folder.name}", total=own, completed=done)
        for index, chosen in zip(indices, work, strict=True):
            store.write_shard(index, make(chosen), made_with)
            done += len(chosen)
            bar.update(task, completed=done)


def _conclude(config: PairsConfig, store: PairStore, count: int, device: torch.device, rank: int) -> None:
    manifest = manifests.finish(store, count)
    if manifest is None:
        print(f"process {rank} has finished its shards; other processes have not")
        return
    size = manifest["bytes"] / manifest["pairs"]
    print(f"{manifest['pairs']} pairs in {count} shards of {store.folder}, {size:,.0f} bytes per pair")
    if "round_trip_rmse" in manifest:
        print(_summary(manifest))
    contact_sheet(store, load_autoencoder(config.base, device), store.folder / "contact_sheet.png")


def _summary(manifest: dict[str, Any]) -> str:
    trips = manifest["round_trips"]
    worst = max(trips, key=lambda name: trips[name][0])
    worse = sum(own >= fresh for own, fresh in trips.values())
    return (
        f"round trip of {len(trips)} pairs: rmse {manifest['round_trip_rmse']} from the teacher's eps, "
        f"{manifest['fresh_noise_rmse']} from fresh noise (latents have rms 1); "
        f"worst {trips[worst][0]} ({worst}); {worse} no better than fresh noise"
    )
