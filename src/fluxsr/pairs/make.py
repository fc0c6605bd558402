"""The road from orders to a store, the same for sampled and inverted pairs: resumable, and shared by many processes.

Processes do not talk. Each takes every n-th shard, all agree by the manifest, and a shard is written whole or not at
all; so a process that dies costs its own unfinished shard and holds nobody up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fluxsr.backbones import latents
from fluxsr.backbones.device import best_device
from fluxsr.backbones.licence import licence_of
from fluxsr.backbones.loading import load_autoencoder
from fluxsr.backbones.parts import part_config, skeleton
from fluxsr.errors import InputError
from fluxsr.pairs import manifest as manifests
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.generate import sample_orders, sample_pairs
from fluxsr.pairs.invert import invert_orders, invert_pairs
from fluxsr.pairs.orders import Order, own_device, place, shards
from fluxsr.pairs.show import contact_sheet
from fluxsr.pairs.store import PairStore, TeacherPair
from fluxsr.pairs.teacher import load_teacher
from fluxsr.progress import progress


def _latent_pixels(base: str) -> int:
    """Of the teacher's autoencoder, whose weights are not read for it."""
    return latents.latent_pixels(skeleton(part_config(base, "vae"), "vae"))


def make_pairs(config: PairsConfig, out: Path) -> None:
    """Write this process's shards of a store that are not there yet; who finds it complete adds summary and sheet.

    Raises:
        InputError: options that do not fit, or a store of other settings.
    """
    _check(config)
    rank, world = place()
    device = best_device(own_device(config.device))
    orders = sample_orders(config) if config.mode == "sample" else invert_orders(config, _latent_pixels(config.base))
    parts = shards(len(orders), config.shard)
    store = PairStore(out)
    settings = manifests.settings_of(config, orders)
    manifests.refuse_early(store, settings)
    missing = [k for k in range(rank, len(parts), world) if not store.has_shard(k)]
    if missing:
        store.create()
        needed = [orders[k].prompt for part in missing for k in parts[part]]
        teacher = load_teacher(config, needed, device, out)
        licence = licence_of(config.base, teacher.transformer.config, config.licence)
        manifests.claim(store, manifests.full_manifest(config, settings, teacher, licence))
        vae = load_autoencoder(config.base, device) if config.mode == "invert" else None

        def make(chosen: Sequence[Order]) -> list[TeacherPair]:
            return sample_pairs(teacher, chosen) if vae is None else invert_pairs(teacher, vae, chosen)

        made_with = manifests.versions() | {"device": manifests.device_name(device)}
        own = sum(len(parts[k]) for k in range(rank, len(parts), world))
        _fill(store, make, [[orders[i] for i in parts[k]] for k in missing], missing, made_with, own, rank)
    _conclude(config, store, len(parts), device, rank)


def _check(config: PairsConfig) -> None:
    for name in ("steps", "window", "batch", "shard", "text_tokens"):
        if getattr(config, name) < 1:
            raise InputError(f"{name} is {getattr(config, name)}; it must be at least 1")
    if config.window % 2:
        raise InputError(f"window is {config.window}; the teacher packs 2x2 latents, so it must be even")
    if config.seed < 0:
        raise InputError(f"seed is {config.seed}; it must not be negative")


def _fill(
    store: PairStore,
    make: Callable[[Sequence[Order]], list[TeacherPair]],
    work: list[list[Order]],
    indices: list[int],
    made_with: dict[str, str],
    own: int,
    rank: int,
) -> None:
    """Make and write shard after shard; the first process shows how far it is with its share of ``own`` pairs."""
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
        print(f"process {rank} has made its share; other processes have not")
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
