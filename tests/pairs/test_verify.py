"""A store is verified: every kind of damage is found, and eps leads to z_0."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fluxsr.imaging.photographs import DataConfig
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.make import make_pairs
from fluxsr.pairs.store import PairStore
from fluxsr.pairs.verify import faults, reintegrate


@pytest.fixture(scope="module")
def whole(options: Callable[..., PairsConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of five sampled pairs in three shards, made once."""
    out = tmp_path_factory.mktemp("whole")
    make_pairs(options(count=5, steps=2), out)
    return out


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> PairStore:
    shutil.copytree(whole, tmp_path / "out")
    return PairStore(tmp_path / "out")


def test_a_whole_store_has_no_faults(store: PairStore) -> None:
    assert list(faults(store)) == []
    found, results = reintegrate(store, 3)
    assert found == [] and [pair.name for pair, _ in results] == ["seed-0", "seed-1", "seed-3"]
    assert all(error < 1e-3 for _, error in results)  # float16 of z_0


def test_a_flipped_byte(store: PairStore) -> None:
    data = bytearray(store.path(1).read_bytes())
    data[-5] ^= 1
    store.path(1).write_bytes(data)
    (fault,) = faults(store)
    assert fault.startswith("shard-00001.safetensors is damaged")


def test_a_missing_shard(store: PairStore) -> None:
    store.path(0).unlink()
    store.path(2, "json").unlink()
    assert [fault[:32] for fault in faults(store)] == [
        "shard-00000.safetensors is missi", "shard-00002.safetensors is missi",
    ]  # fmt: skip


def test_a_value_that_is_not_finite(store: PairStore) -> None:
    """Hash and all: written so, not damaged since."""
    first, second = store.shard(0)
    bad = first.z_0.clone()
    bad[0, 0, 0] = float("nan")
    store.write_shard(0, [replace(first, z_0=bad), second])
    (fault,) = faults(store)
    assert fault == "shard-00000.safetensors: pair 'seed-0' has values that are not finite"


def test_wrong_shapes_counts_and_names(store: PairStore) -> None:
    first, second = store.shard(0)
    store.write_shard(
        0, [replace(first, eps=torch.zeros(4, 2, 2), seed=None), second, replace(second, z_0=second.z_0.clone())]
    )
    assert list(faults(store)) == [
        "shard-00000.safetensors holds 3 pairs; expected 2",
        "shard-00000.safetensors: pair 'seed-0' has z_0 [4, 4, 4] and eps [4, 2, 2]",
        "shard-00000.safetensors: pair 'seed-1' occurs twice",
    ]


def test_unreadable_records(store: PairStore) -> None:
    store.path(0, "json").write_text("{", encoding="utf-8")
    (fault,) = faults(store)
    assert "shard-00000.json cannot be read" in fault


def test_noise_that_leads_elsewhere(store: PairStore) -> None:
    """z_0 of another pair: files and hashes are in order, the flow is not."""
    first, second = store.shard(0)
    store.write_shard(0, [replace(first, z_0=second.z_0), replace(second, z_0=first.z_0)])
    assert list(faults(store)) == []
    found, _ = reintegrate(store, 5)
    assert [fault.split(":")[0] for fault in found] == ["pair 'seed-0'", "pair 'seed-1'"]
    assert "the teacher or its settings have changed" in found[0]


def test_inverted_pairs_come_back_as_they_did(
    options: Callable[..., PairsConfig], photographs: Path, model_folder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    data = DataConfig(shards=[str(photographs)])
    make_pairs(options(base=str(base), mode="invert", count=0, steps=4, data=data), tmp_path / "out")
    store = PairStore(tmp_path / "out")
    base.rename(tmp_path / "elsewhere")
    found, results = reintegrate(store, 4, str(tmp_path / "elsewhere"))
    assert found == [] and len(results) == 4
    pair = store.shard(0)[0]
    store.write_shard(0, [replace(pair, eps=pair.eps.flip(1)), store.shard(0)[1]])
    found, _ = reintegrate(store, 4, str(model_folder))
    assert len(found) == 1 and "pair 'a'" in found[0] and "when it was made" in found[0]
