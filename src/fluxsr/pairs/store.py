"""Teacher pairs on disk: safetensors shards and one manifest, resumable shard by shard."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from fluxsr.errors import InputError


@dataclass(frozen=True)
class TeacherPair:
    """Noise and the clean latent it leads to.

    Attributes:
        name: the photograph inverted, or the seed sampled.
        z_0: clean latent (C,h,w).
        eps: the teacher's noise (C,h,w).
    """

    name: str
    z_0: Tensor
    eps: Tensor


class PairStore:
    """A folder ``shard-00000.safetensors``, ``shard-00000.json`` ..., ``manifest.json``."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def has_shard(self, index: int) -> bool:
        return self._path(index, "json").is_file()

    def write_shard(self, index: int, names: list[str], z_0: Tensor, eps: Tensor) -> None:
        """Write pairs (n,C,h,w) atomically; the names come last and mark the shard as whole. Stored in float16.

        Half precision errs by 2^-11 of a value near 1, far below the error of integrating the flow.
        """
        if not len(names) == len(z_0) == len(eps):
            raise ValueError(f"{len(names)} names for {len(z_0)} z_0 and {len(eps)} eps; a shard needs one of each")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(index, "safetensors")
        partial = path.with_suffix(".partial")
        save_file({"z_0": z_0.half().contiguous(), "eps": eps.half().contiguous()}, partial)
        os.replace(partial, path)
        self._write_json(self._path(index, "json"), names)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        self._write_json(self.folder / "manifest.json", manifest)

    def manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        if not path.is_file():
            raise InputError(f"no manifest.json in {self.folder}; make pairs with `fluxsr pairs invert` first")
        return json.loads(path.read_text(encoding="utf-8"))

    def __iter__(self) -> Iterator[TeacherPair]:
        index = 0
        while self.has_shard(index):
            names = json.loads(self._path(index, "json").read_text(encoding="utf-8"))
            tensors = load_file(self._path(index, "safetensors"))
            for name, z_0, eps in zip(names, tensors["z_0"], tensors["eps"], strict=True):
                yield TeacherPair(name, z_0, eps)
            index += 1

    def _path(self, index: int, suffix: str) -> Path:
        return self.folder / f"shard-{index:05d}.{suffix}"

    def _write_json(self, path: Path, value: Any) -> None:
        partial = path.with_suffix(".tmp")
        partial.write_text(json.dumps(value, indent=1), encoding="utf-8")
        os.replace(partial, path)
