"""Verify a store: its files, hashes, shapes and values, and that eps still leads to z_0."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch

from fluxsr.backbones.device import best_device
from fluxsr.errors import StoreError
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.pair_specs import shards
from fluxsr.pairs.store import PairStore, TeacherPair
from fluxsr.pairs.teacher import load_teacher


def faults(store: PairStore) -> Iterator[str]:
    """Yield one line for every fault in the files of a store.

    Raises:
        InputError: the manifest is missing.
        StoreError: the manifest cannot be read.
    """
    manifest = store.manifest()
    names: set[str] = set()
    for index, part in enumerate(shards(int(manifest["count"]), int(manifest["shard"]))):
        yield from _shard_faults(store, index, len(part), names)


def _shard_faults(store: PairStore, index: int, count: int, names: set[str]) -> Iterator[str]:
    path = store.path(index)
    if not store.has_shard(index):
        yield f"{path.name} is missing; run the command that made the store again"
        return
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != store.shard_info(index).get("sha256"):
            yield f"{path.name} is damaged: its SHA-256 differs from the recorded one; delete it and make it again"
            return
        pairs = store.shard(index)
    except StoreError as error:
        yield str(error)
        return
    if len(pairs) != count:
        yield f"{path.name} holds {len(pairs)} pairs; expected {count}"
    for pair in pairs:
        if pair.name in names:
            yield f"{path.name}: pair '{pair.name}' occurs twice"
        names.add(pair.name)
        if pair.z_0.shape != pair.eps.shape or pair.z_0.ndim != 3:
            yield f"{path.name}: pair '{pair.name}' has z_0 {list(pair.z_0.shape)} and eps {list(pair.eps.shape)}"
        elif not bool(torch.isfinite(pair.z_0).all() and torch.isfinite(pair.eps).all()):
            yield f"{path.name}: pair '{pair.name}' has values that are not finite"


def reintegrate(
    store: PairStore, count: int, base: str = "", device: str = "auto"
) -> tuple[list[str], list[tuple[TeacherPair, float]]]:
    """Sample from the eps of ``count`` pairs, evenly taken from the store, and compare the results with their z_0.

    Sampled pairs must be reproduced within TOLERANCE, which allows for rounding on another device. Inverted pairs
    must be reproduced about as well as when they were made.

    Args:
        store: the store to verify.
        count: number of pairs.
        base: the teacher, if it is no longer where the manifest says.
        device: device of the teacher.

    Returns:
        One line for every fault; and every pair with its root mean square error relative to its z_0.
    """
    manifest = store.manifest()
    known = {field.name for field in fields(PairsConfig)} - {"data", "device", "licence"}
    config = PairsConfig(**{key: value for key, value in manifest.items() if key in known})
    config.base, config.batch = base or config.base, 1
    chosen = store.sample_evenly(count)
    where = best_device(device)
    teacher = load_teacher(config, [pair.prompt for pair in chosen], where, None)
    found, results = [], []
    for pair in chosen:
        end, z_0 = teacher.sample(pair.eps[None], [pair.prompt])[0], pair.z_0.float()
        error = float((end - z_0).square().mean().sqrt())
        results.append((pair, error / float(z_0.square().mean().sqrt())))
        limit, why = _limit(pair, manifest)
        if error > limit:
            found.append(f"pair '{pair.name}': eps leads {error:.4f} away from z_0; {why}")
    return found, results


TOLERANCE = 0.05  # relative to the latent's RMS: bfloat16 on another device, over tens of steps


def _limit(pair: TeacherPair, manifest: dict[str, Any]) -> tuple[float, str]:
    if manifest["mode"] == "sample":
        return TOLERANCE * float(pair.z_0.float().square().mean().sqrt()), "the teacher or its settings have changed"
    if pair.round_trip:
        return pair.round_trip[0] * 1.1 + TOLERANCE, f"it was {pair.round_trip[0]} when it was made"
    fresh = manifest.get("fresh_noise_rmse", float("inf"))
    return fresh, f"fresh noise leads {fresh} away"
