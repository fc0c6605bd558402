"""Teacher pairs on disk: safetensors shards with their records, and one manifest; resumable shard by shard."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fluxsr.errors import InputError, OutputError, StoreError
from fluxsr.keyed import keyed_noise
from fluxsr.names import storable


@dataclass(frozen=True)
class TeacherPair:
    """Noise and the clean latent it leads to.

    Attributes:
        name: the photograph inverted (with its corner where only a part is), or the seed sampled.
        z_0: clean latent (C,h,w).
        eps: the teacher's noise (C,h,w).
        prompt: the teacher's text; empty for a fixed condition.
        seed: of a sampled pair's noise; None for an inverted pair.
        photo: name of the photograph inverted.
        box: (top, left, height, width) of its part, in pixels; None for the whole.
        round_trip: root mean square error of coming back from eps, and from fresh noise, where measured.
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
        """The part of its photograph (3,H,W) that was inverted; None if it is not among those given."""
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
        """Make the folder.

        Raises:
            OutputError: it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error}") from error

    def has_shard(self, index: int) -> bool:
        return self.path(index, "json").is_file() and self.path(index).is_file()

    def write_shard(self, index: int, pairs: Sequence[TeacherPair], made_with: Mapping[str, str] | None = None) -> None:
        """Write pairs atomically; the records come last and mark the shard as whole.

        z_0 is stored in float16, which errs by at most 2^-11 of a value. So is an inverted eps. The noise of a
        sampled pair is stored as its seed where that gives it back to the bit, with a hash that reading checks.

        Args:
            made_with: versions and device, kept for the curious.
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
        self._write(self.path(index), data)
        digest = hashlib.sha256(data).hexdigest()
        self._write_json(
            self.path(index, "json"), {"pairs": records, "sha256": digest, "made_with": dict(made_with or {})}
        )

    def shard(self, index: int) -> list[TeacherPair]:
        """The pairs of one shard.

        Raises:
            StoreError: files that cannot be read or do not fit each other, or noise that its seed does not give here.
        """
        path, records = self.path(index), self.records(index)
        try:
            tensors = load(path.read_bytes())
            if "z_0" in tensors:  # stores of version 0.1: stacked, eps always present
                tensors = {f"{k:05d}.{key}": row for key, rows in tensors.items() for k, row in enumerate(rows)}
            return [_pair(record, tensors, k) for k, record in enumerate(records)]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise _unreadable(path, error) from error

    def records(self, index: int) -> list[dict[str, Any]]:
        """What the shard says of its pairs."""
        found = self.shard_info(index)["pairs"]
        return [{"name": entry} if isinstance(entry, str) else entry for entry in found]

    def shard_info(self, index: int) -> dict[str, Any]:
        """``pairs``, ``sha256`` (absent in stores of version 0.1) and ``made_with``."""
        path = self.path(index, "json")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return {"pairs": found} if isinstance(found, list) else {"pairs": found["pairs"], **found}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(path, error) from error

    def create_manifest(self, manifest: Mapping[str, Any]) -> bool:
        """Write the manifest unless there is one; of many processes exactly one succeeds, and says so."""
        self.create()
        target, partial = self.folder / "manifest.json", self._partial("manifest.json")
        partial.write_text(_json(manifest), encoding="utf-8")
        try:
            os.link(partial, target)  # fails where there is one, unlike a rename
        except FileExistsError:
            return False
        except OSError:  # a file system without links: a rename, which processes of one launch may do one after another
            if target.is_file():
                return False
            os.replace(partial, target)
            return True
        finally:
            partial.unlink(missing_ok=True)
        return True

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        self._write_json(self.folder / "manifest.json", manifest)

    def manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        if not path.is_file():
            raise InputError(f"no manifest.json in {self.folder}; make pairs with `fluxsr pairs invert` first")
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise _unreadable(path, error) from error

    def __iter__(self) -> Iterator[TeacherPair]:
        index = 0
        while self.has_shard(index):
            yield from self.shard(index)
            index += 1

    def count(self) -> int:
        """Pairs that iteration gives, those before the first shard that is missing; only records are read."""
        found = index = 0
        while self.has_shard(index):
            found, index = found + len(self.records(index)), index + 1
        return found

    def spread(self, count: int) -> list[TeacherPair]:
        """So many pairs, evenly spread over what is there; only their shards are read.

        Raises:
            InputError: a store without pairs.
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
        """Remove shards that killed processes had begun to write; only for a store that is complete.

        A manifest that is being written may be another process's, which finds the store complete too.
        """
        for path in self.folder.glob(".shard-*.partial"):
            path.unlink(missing_ok=True)

    def _partial(self, name: str) -> Path:
        """A name of this process alone: two that make the same shard do not write into one file."""
        return self.folder / f".{name}.{platform.node()}-{os.getpid()}-{threading.get_ident()}.partial"

    def _write(self, path: Path, data: bytes) -> None:
        partial = self._partial(path.name)
        try:
            partial.write_bytes(data)
            os.replace(partial, path)
        except OSError as error:  # a full disk, say
            partial.unlink(missing_ok=True)
            raise OutputError(f"cannot write {path}: {error}; the same command goes on from here") from error

    def _write_json(self, path: Path, value: Any) -> None:
        self._write(path, _json(value).encode())


def _json(value: Any) -> str:
    # a name's bytes that are not UTF-8 become JSON's own escapes, and are read back as they were
    return storable(json.dumps(value, indent=1, ensure_ascii=False))


def _pair(record: Mapping[str, Any], tensors: Mapping[str, Tensor], k: int) -> TeacherPair:
    z_0, eps, seed = tensors[f"{k:05d}.z_0"], tensors.get(f"{k:05d}.eps"), record.get("seed")
    if eps is None:
        eps = keyed_noise(z_0.shape, int(record["seed"]))
        if _hash(eps) != record["eps_sha256"]:
            raise ValueError(f"the noise of seed {seed} does not come out on this machine as it did")
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


def _unreadable(path: Path, error: Exception) -> StoreError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return StoreError(f"{path} cannot be read ({line}); delete it and run the command that made it again")
