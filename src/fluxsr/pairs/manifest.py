"""Manifest of a store: settings, versions, the teacher and its licence. All pairs of a store have equal settings."""

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
from fluxsr.pairs.pair_specs import PairSpec, digest
from fluxsr.pairs.store import PairStore
from fluxsr.pairs.teacher import Teacher, falling_times

PACKAGES = ("fluxsr", "torch", "diffusers", "transformers", "safetensors", "numpy")
# Options that do not change a pair: locations, device and licence.
_LOCATIONS = ("data", "device", "base", "licence", "prompts")
_OF_PHOTOGRAPHS = ("crop", "check")  # options that only inversion uses


def settings_of(config: PairsConfig, specs: Sequence[PairSpec]) -> dict[str, Any]:
    """Return the settings that all pairs of a store must share, as far as known before the teacher is loaded."""
    left_out = _LOCATIONS + (_OF_PHOTOGRAPHS if config.mode == "sample" else ())
    options = {key: value for key, value in asdict(config).items() if key not in left_out}
    return {**options, "count": len(specs), "orders_sha256": digest(specs)}


def full_manifest(
    config: PairsConfig, settings: Mapping[str, Any], teacher: Teacher, licence: Licence
) -> dict[str, Any]:
    """Return the manifest of a new store."""
    return {
        "format": 2,
        **settings,
        "base": config.base,
        "prompts": config.prompts,
        "teacher_sha256": fingerprint(teacher.transformer),
        "times": falling_times(config, teacher.transformer),
        "licence": licence.as_dict(),
        "versions": versions(),
    }


def claim(store: PairStore, manifest: Mapping[str, Any]) -> None:
    """Create the manifest, or check that the existing one has the same settings. Safe for concurrent processes.

    Raises:
        InputError: the store holds pairs with other settings or of another teacher.
    """
    if not store.create_manifest(manifest):
        keys = [key for key in manifest if key not in (*_LOCATIONS, "versions", "licence", "times")]
        refuse_others(store, {key: manifest[key] for key in keys})


def refuse_early(store: PairStore, settings: Mapping[str, Any]) -> None:
    """Check an existing store before the teacher is loaded, which takes minutes.

    Raises:
        InputError: the store holds pairs with other settings, or shards without a manifest.
    """
    shards = any(store.folder.glob("shard-*"))  # listed before the manifest, as another process may write both now
    if (store.folder / "manifest.json").is_file():
        refuse_others(store, settings)
    elif shards:
        raise InputError(f"{store.folder} holds shards but no manifest.json; choose another --out")


def refuse_others(store: PairStore, settings: Mapping[str, Any]) -> None:
    """Check that the manifest has these settings.

    Raises:
        InputError: a setting differs.
    """
    found = store.manifest()
    other = [key for key in settings if found.get(key) != settings[key]]
    if other:
        changes = ", ".join(f"{key} {_short(found.get(key))} there, {_short(settings[key])} here" for key in other)
        raise InputError(f"{store.folder} holds pairs with other settings ({changes}); choose another --out")


def finish(store: PairStore, shards: int) -> dict[str, Any] | None:
    """Add the round trips to the manifest and return it, or return None while shards are missing.

    The result depends on the shards only, so it does not matter which process writes it, or whether several do.
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
    """Return a hash of a few values of every weight. It detects a retrained teacher and is cheap for large ones."""
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
    """Return the device's product name, because products differ in rounding."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:8]}..."
