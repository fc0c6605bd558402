"""Teacher pairs on disk: what is written comes back, and half a shard is no shard."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.pairs import store as stores
from fluxsr.pairs.store import PairStore


def latents(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    z_0, eps = torch.randn(2, count, 4, 6, 8, generator=torch.Generator().manual_seed(seed))
    return z_0, eps


def test_round_trip_in_order_over_shards(tmp_path: Path) -> None:
    store = PairStore(tmp_path / "new")
    z_0, eps = latents(5)
    store.write_shard(1, ["d", "e"], z_0[3:], eps[3:])  # shards may come in any order
    store.write_shard(0, ["a", "b", "c"], z_0[:3], eps[:3])
    pairs = list(PairStore(tmp_path / "new"))
    assert [pair.name for pair in pairs] == ["a", "b", "c", "d", "e"]
    for pair, z, noise in zip(pairs, z_0, eps, strict=True):
        assert torch.equal(pair.z_0, z.half()) and torch.equal(pair.eps, noise.half())


def test_half_precision_errs_by_two_to_the_minus_eleven(tmp_path: Path) -> None:
    z_0, eps = latents(1)
    PairStore(tmp_path).write_shard(0, ["a"], z_0, eps)
    (pair,) = PairStore(tmp_path)
    assert bool(((pair.eps.float() - eps[0]).abs() <= 2**-11 * eps[0].abs() + 1e-7).all())


def test_views_and_other_memory_formats_are_stored_as_seen(tmp_path: Path) -> None:
    z_0, eps = latents(2)
    PairStore(tmp_path).write_shard(0, ["a", "b"], z_0.contiguous(memory_format=torch.channels_last), eps.flip(0))
    found = load_file(tmp_path / "shard-00000.safetensors")
    assert torch.equal(found["z_0"], z_0.half()) and torch.equal(found["eps"], eps.flip(0).half())


def test_a_shard_without_its_names_does_not_count(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    for index in range(3):
        store.write_shard(index, [str(index)], *latents(1, index))
    (tmp_path / "shard-00001.json").unlink()
    assert [store.has_shard(index) for index in range(4)] == [True, False, True, False]
    assert [pair.name for pair in store] == ["0"]  # a gap ends the store: what follows is not yet known to be whole
    store.write_shard(1, ["1"], *latents(1, 1))
    assert [pair.name for pair in store] == ["0", "1", "2"]


@pytest.mark.parametrize("broken", ["save_file", "replace"])
def test_a_kill_while_writing_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Cut off before the tensors are whole, or before they have their name."""
    store = PairStore(tmp_path)

    def cut(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stores if broken == "save_file" else stores.os, broken, cut)
        with pytest.raises(KeyboardInterrupt):
            store.write_shard(0, ["a"], *latents(1))
    assert not store.has_shard(0) and list(store) == []
    assert not (tmp_path / "shard-00000.safetensors").exists()
    store.write_shard(0, ["a"], *latents(1))
    assert len(list(store)) == 1


def test_names_and_latents_must_be_as_many(tmp_path: Path) -> None:
    z_0, eps = latents(2)
    with pytest.raises(ValueError, match="1 names for 2 z_0 and 2 eps"):
        PairStore(tmp_path).write_shard(0, ["a"], z_0, eps)
    assert list(tmp_path.iterdir()) == []


def test_manifest_round_trip(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    with pytest.raises(InputError, match="no manifest.json in .*fluxsr pairs invert"):
        store.manifest()
    store.write_manifest({"mode": "invert", "count": 3, "round_trip_rmse": 0.1})
    assert store.manifest() == {"mode": "invert", "count": 3, "round_trip_rmse": 0.1}


def test_an_absent_folder_is_an_empty_store(tmp_path: Path) -> None:
    assert list(PairStore(tmp_path / "absent")) == []
