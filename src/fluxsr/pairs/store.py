"""Store of teacher pairs: safetensors shards with JSON records, and one manifest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fluxsr.errors import InputError, OutputError, StoreError, first_line
from fluxsr.imaging.atomic import part_of, replaced, write_text
from fluxsr.keyed import keyed_noise
from fluxsr.names import storable


@dataclass(frozen=True)
class TeacherPair:
    """Noise and the clean latent it leads to.

    Attributes:
        name: name of the inverted photograph (with the crop's corner if it is a crop), or of the sampled seed.
        z_0: clean latent (C,h,w).
        eps: the teacher's noise (C,h,w).
        prompt: the teacher's prompt; empty for the fixed prompt.
        seed: seed of a sampled pair's noise; None for an inverted pair.
        photo: name of the inverted photograph.
        box: crop of the photograph (top, left, height, width) in pixels; None for the whole photograph.
        round_trip: root mean square errors of sampling from eps and from fresh noise, if measured.
    """

    name: str
    z_0: Tensor
    eps: Tensor
    prompt: str = ""
    seed: int | None = None
    photo: str = ""
    box: tuple[int, int, int, int] | None = None
    round_trip: tuple[float, float] | None = None

    def cut(self, photographs: Mapping[str, Tensor]) -> Tensor | None:
        """Return the crop of the photograph (3,H,W) that was inverted; None if ``photographs`` lacks it."""
        photo = photographs.get(self.photo or self.name)
        if photo is None or self.box is None:
            return photo
        top, left, height, width = self.box
        return photo[:, top : top + height, left : left + width]


class PairStore:
    """A folder ``shard-00000.safetensors``, ``shard-00000.json`` ..., ``manifest.json``."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def create(self) -> None:
        """Create the folder.

        Raises:
            OutputError: the folder cannot be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error}") from error

    def has_shard(self, index: int) -> bool:
        return self.path(index, "json").is_file() and self.path(index).is_file()

    def write_shard(self, index: int, pairs: Sequence[TeacherPair], made_with: Mapping[str, str] | None = None) -> None:
        """Write the pairs of a shard atomically. The records are written last and mark the shard as complete.

        z_0 and inverted eps are stored in float16, with a relative error of at most 2^-11. The noise of a sampled
        pair is stored as its seed if the seed reproduces it exactly, with a hash that is checked on reading.

        Args:
            index: index of the shard.
            pairs: the pairs to store.
            made_with: versions and device, for information only.

        Raises:
            OutputError: the shard cannot be written.
        """
        tensors, records = {}, []
        for k, pair in enumerate(pairs):
            tensors[f"{k:05d}.z_0"], eps = pair.z_0.half().contiguous(), pair.eps.half().contiguous()
            record: dict[str, Any] = {"name": pair.name, "prompt": pair.prompt, "seed": pair.seed}
            if pair.seed is not None and torch.equal(keyed_noise(eps.shape, pair.seed), eps):
                record["eps_sha256"] = _hash(eps)
            else:
                tensors[f"{k:05d}.eps"] = eps
            if pair.photo:
                record |= {"photo": pair.photo, "box": pair.box and list(pair.box)}
            if pair.round_trip:
                record["round_trip"] = list(pair.round_trip)
            records.append(record)
        self.create()
        data = save(tensors)
        with replaced(self.path(index)) as file:
            file.write(data)
        info = {"pairs": records, "sha256": hashlib.sha256(data).hexdigest(), "made_with": dict(made_with or {})}
        write_text(_json(info), self.path(index, "json"))

    def shard(self, index: int) -> list[TeacherPair]:
        """Return the pairs of one shard.

        Raises:
            StoreError: files that cannot be read or do not match, or a seed that does not reproduce its noise.
        """
        path, records = self.path(index), self.records(index)
        try:
            tensors = load(path.read_bytes())
            return [_pair(record, tensors, k) for k, record in enumerate(records)]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise _unreadable(path, error) from error

    def records(self, index: int) -> list[dict[str, Any]]:
        """Return the records of a shard's pairs."""
        return list(self.shard_info(index)["pairs"])

    def shard_info(self, index: int) -> dict[str, Any]:
        """Return a shard's JSON: ``pairs``, ``sha256`` and ``made_with``."""
        return _read(self.path(index, "json"), "pairs")

    def create_manifest(self, manifest: Mapping[str, Any]) -> bool:
        """Write the manifest unless it exists. Return True in exactly one of many concurrent processes."""
        self.create()
        target = self.folder / "manifest.json"
        partial = part_of(target)
        partial.write_text(_json(manifest), encoding="utf-8")
        try:
            os.link(partial, target)  # fails if the manifest exists, unlike a rename
        except FileExistsError:
            return False
        except OSError:  # the file system has no hard links; a rename may overwrite an equal manifest
            if target.is_file():
                return False
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return True

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        write_text(_json(manifest), self.folder / "manifest.json")

    def manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        if not path.is_file():
            raise InputError(f"no manifest.json in {self.folder}; make pairs with `fluxsr pairs invert` first")
        return _read(path)

    def write_dropped(self, record: Mapping[str, Any]) -> None:
        """Write ``screened.json``, whose ``dropped`` maps names of pairs to reasons. No pair is deleted."""
        write_text(_json(record), self.folder / "screened.json")

    def dropped(self) -> dict[str, str]:
        """Return the pairs that screening dropped, with the reason; empty if the store was not screened."""
        path = self.folder / "screened.json"
        return dict(_read(path, "dropped")["dropped"]) if path.is_file() else {}

    def __iter__(self) -> Iterator[TeacherPair]:
        for index in self._complete():
            yield from self.shard(index)

    def _complete(self) -> Iterator[int]:
        return takewhile(self.has_shard, count())

    def count(self) -> int:
        """Return the number of pairs before the first missing shard, which iteration yields. Reads records only."""
        return sum(len(self.records(index)) for index in self._complete())

    def sample_evenly(self, count: int) -> list[TeacherPair]:
        """Return up to ``count`` pairs at even intervals over the store. Reads only their shards.

        Raises:
            InputError: the store has no pairs.
        """
        indices = sorted(int(path.stem.split("-")[1]) for path in self.folder.glob("shard-*.json"))
        there = [(index, k) for index in indices if self.has_shard(index) for k in range(len(self.records(index)))]
        if not there:
            raise InputError(f"no pairs in {self.folder} yet")
        count = min(count, len(there))
        chosen = [there[k * len(there) // count] for k in range(count)]
        return [self.shard(index)[k] for index, k in chosen]

    def path(self, index: int, suffix: str = "safetensors") -> Path:
        return self.folder / f"shard-{index:05d}.{suffix}"

    def clean(self) -> None:
        """Remove unfinished shards of killed processes. Call this only when the store is complete.

        Unfinished manifests are kept, because another process may be writing one now.
        """
        for path in self.folder.glob(".shard-*.part"):
            path.unlink(missing_ok=True)


def _json(value: Any) -> str:
    # Bytes of a name that are not UTF-8 become JSON escapes, which are read back unchanged.
    return storable(json.dumps(value, indent=1, ensure_ascii=False))


def _pair(record: Mapping[str, Any], tensors: Mapping[str, Tensor], k: int) -> TeacherPair:
    z_0, eps, seed = tensors[f"{k:05d}.z_0"], tensors.get(f"{k:05d}.eps"), record.get("seed")
    if eps is None:
        eps = keyed_noise(z_0.shape, int(record["seed"]))
        if _hash(eps) != record["eps_sha256"]:
            raise ValueError(f"seed {seed} does not reproduce its noise on this machine")
    box, errors = record.get("box"), record.get("round_trip")
    return TeacherPair(
        record["name"],
        z_0,
        eps,
        record.get("prompt", ""),
        seed,
        record.get("photo", ""),
        (box[0], box[1], box[2], box[3]) if box else None,
        (errors[0], errors[1]) if errors else None,
    )


def _hash(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def _read(path: Path, key: str = "") -> dict[str, Any]:
    """Return the content of a JSON file, which must have the key."""
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
        return {key: found[key], **found} if key else found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path} cannot be read ({first_line(error)}); delete it and run the command that made it again")
