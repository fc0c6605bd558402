"""The manifest: settings, versions, the teacher and its licence; settings are never mixed in one store."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from fluxsr.backbones.licence import Licence
from fluxsr.errors import InputError
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.orders import Order, digest
from fluxsr.pairs.store import PairStore
from fluxsr.pairs.teacher import Teacher, falling_times

PACKAGES = ("fluxsr", "torch", "diffusers", "transformers", "safetensors", "numpy")
# What does not change a pair: where things lie and what computes.
_PLACES = ("data", "device", "base", "licence", "prompts")
_OF_PHOTOGRAPHS = ("crop", "check")  # what sampling does not look at


def settings_of(config: PairsConfig, orders: Sequence[Order]) -> dict[str, Any]:
    """What pairs of one store must have in common, as far as it is known before the teacher is loaded."""
    left_out = _PLACES + (_OF_PHOTOGRAPHS if config.mode == "sample" else ())
    options = {key: value for key, value in asdict(config).items() if key not in left_out}
    return {**options, "count": len(orders), "orders_sha256": digest(orders)}


def full_manifest(
    config: PairsConfig, settings: Mapping[str, Any], teacher: Teacher, licence: Licence
) -> dict[str, Any]:
    """The manifest of a store that is begun."""
    return {
        "format": 2,
        **settings,
        "base": config.base,
        "prompts": config.prompts,
        "teacher_sha256": fingerprint(teacher.transformer),
        "times": falling_times(config),
        "licence": licence.as_dict(),
        "versions": versions(),
    }


def claim(store: PairStore, manifest: Mapping[str, Any]) -> None:
    """Create the manifest, or find one with the same settings there. Safe for many processes at once.

    Raises:
        InputError: the store holds pairs of other settings or another teacher.
    """
    if not store.create_manifest(manifest):
        keys = [key for key in manifest if key not in (*_PLACES, "versions", "licence", "times")]
        refuse_others(store, {key: manifest[key] for key in keys})


def refuse_early(store: PairStore, settings: Mapping[str, Any]) -> None:
    """Look before the teacher is loaded, which takes minutes.

    Raises:
        InputError: the store holds pairs of other settings, or of nobody knows which.
    """
    shards = any(store.folder.glob("shard-*"))  # before the manifest: another process may be about to write both
    if (store.folder / "manifest.json").is_file():
        refuse_others(store, settings)
    elif shards:
        raise InputError(f"{store.folder} holds shards without their manifest.json; give another --out")


def refuse_others(store: PairStore, settings: Mapping[str, Any]) -> None:
    """Shards of other settings are never mixed in.

    Raises:
        InputError: the manifest differs in one of these.
    """
    found = store.manifest()
    other = [key for key in settings if found.get(key) != settings[key]]
    if other:
        changes = ", ".join(f"{key} {_short(found.get(key))} there, {_short(settings[key])} here" for key in other)
        raise InputError(f"{store.folder} holds pairs of other settings ({changes}); give another --out")


def finish(store: PairStore, shards: int) -> dict[str, Any] | None:
    """Add the round trips to the manifest once every shard is there; None before that.

    The result depends on the shards alone, so that it does not matter which process writes it, or how many do.
    """
    if not all(store.has_shard(index) for index in range(shards)):
        return None
    store.clean()
    records = [record for index in range(shards) for record in store.records(index)]
    measured = {record["name"]: record["round_trip"] for record in records if "round_trip" in record}
    summary: dict[str, Any] = {"pairs": len(records), "bytes": sum(store.path(k).stat().st_size for k in range(shards))}
    if measured:
        own, fresh = (
            round((sum(errors[k] ** 2 for errors in measured.values()) / len(measured)) ** 0.5, 4) for k in (0, 1)
        )
        summary |= {"round_trip_rmse": own, "fresh_noise_rmse": fresh, "round_trips": measured}
    manifest = {**store.manifest(), **summary}
    store.write_manifest(manifest)
    return manifest


def fingerprint(transformer: Any) -> str:
    """A hash of a few values of every weight: tells a retrained teacher, cheaply at 12 billion weights."""
    found = hashlib.sha256()
    for name, weight in sorted(transformer.state_dict().items()):
        start = weight.detach().flatten()[:8].float().cpu()
        found.update(f"{name}{tuple(weight.shape)}".encode() + start.numpy().tobytes())
    return found.hexdigest()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def device_name(device: torch.device) -> str:
    """The device's product name, since another product rounds otherwise."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:8]}..."
