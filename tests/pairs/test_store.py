"""Teacher pairs on disk: what is written comes back, and half a shard is no shard."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fluxsr.errors import InputError, OutputError, StoreError
from fluxsr.keyed import keyed_noise
from fluxsr.pairs import store as stores
from fluxsr.pairs.store import PairStore, TeacherPair


def latents(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    z_0, eps = torch.randn(2, count, 4, 6, 8, generator=torch.Generator().manual_seed(seed))
    return z_0, eps


def made(names: str, seed: int = 0) -> list[TeacherPair]:
    """A pair for every letter."""
    return [TeacherPair(*row) for row in zip(names, *latents(len(names), seed), strict=True)]


def test_round_trip_in_order_over_shards(tmp_path: Path) -> None:
    store = PairStore(tmp_path / "new")
    pairs = made("abcde")
    store.write_shard(1, pairs[3:])  # shards may come in any order
    store.write_shard(0, pairs[:3])
    found = list(PairStore(tmp_path / "new"))
    assert [pair.name for pair in found] == ["a", "b", "c", "d", "e"]
    for pair, wanted in zip(found, pairs, strict=True):
        assert torch.equal(pair.z_0, wanted.z_0.half()) and torch.equal(pair.eps, wanted.eps.half())
        assert (pair.prompt, pair.seed, pair.photo, pair.box, pair.round_trip) == ("", None, "", None, None)


def test_everything_a_pair_knows_comes_back_whatever_its_size(tmp_path: Path) -> None:
    wide = TeacherPair("b@0,8", *(x[0] for x in latents(1)), "an owl", None, "b", (0, 8, 48, 64), (0.1, 1.2))
    small = TeacherPair("c", torch.zeros(4, 2, 2), torch.ones(4, 2, 2), "ein Käuzchen")
    PairStore(tmp_path).write_shard(0, [wide, small])
    found = list(PairStore(tmp_path))
    assert [(p.name, p.prompt, p.photo, p.box, p.round_trip) for p in found] == [
        ("b@0,8", "an owl", "b", (0, 8, 48, 64), (0.1, 1.2)), ("c", "ein Käuzchen", "", None, None),
    ]  # fmt: skip
    assert [p.z_0.shape for p in found] == [(4, 6, 8), (4, 2, 2)]


def test_sampled_noise_is_stored_as_its_seed(tmp_path: Path) -> None:
    shape = (16, 128, 128)  # of a picture of 1024x1024
    z_0 = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    store = PairStore(tmp_path)
    store.write_shard(0, [TeacherPair("seed-5", z_0, keyed_noise(shape, 5), "a fox", 5)])
    assert 16 * 128 * 128 * 2 == 524_288 < store.path(0).stat().st_size < 525_000
    (pair,) = store
    assert torch.equal(pair.eps, keyed_noise(shape, 5)) and pair.seed == 5


def test_noise_that_its_seed_does_not_give_is_stored(tmp_path: Path) -> None:
    z_0, eps = latents(1)
    PairStore(tmp_path).write_shard(0, [TeacherPair("s", z_0[0], eps[0], "", 5)])
    (pair,) = PairStore(tmp_path)
    assert torch.equal(pair.eps, eps[0].half())


def test_noise_that_comes_out_otherwise_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = keyed_noise((4, 2, 2), 5)
    PairStore(tmp_path).write_shard(0, [TeacherPair("s", noise, noise, "", 5)])
    monkeypatch.setattr(stores, "keyed_noise", lambda shape, seed: noise + 1e-3)
    with pytest.raises(StoreError, match="seed 5 does not reproduce its noise on this machine"):
        list(PairStore(tmp_path))


def test_half_precision_errs_by_two_to_the_minus_eleven(tmp_path: Path) -> None:
    z_0, eps = latents(1)
    PairStore(tmp_path).write_shard(0, [TeacherPair("a", z_0[0], eps[0])])
    (pair,) = PairStore(tmp_path)
    assert bool(((pair.eps.float() - eps[0]).abs() <= 2**-11 * eps[0].abs() + 1e-7).all())
    relative = (pair.z_0.float() - z_0[0]).square().mean().sqrt() / z_0[0].square().mean().sqrt()
    assert float(relative) < 3e-4  # bfloat16 would be at 2e-3


def test_views_and_other_memory_formats_are_stored_as_seen(tmp_path: Path) -> None:
    z_0, eps = latents(2)
    odd = z_0.contiguous(memory_format=torch.channels_last)[1].transpose(1, 2)
    PairStore(tmp_path).write_shard(0, [TeacherPair("a", odd, eps.flip(0)[0].transpose(1, 2))])
    (pair,) = PairStore(tmp_path)
    assert torch.equal(pair.z_0, z_0[1].transpose(1, 2).half()) and torch.equal(pair.eps, eps[1].transpose(1, 2).half())


def test_a_shard_without_its_records_or_its_tensors_does_not_count(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    for index in range(4):
        store.write_shard(index, made(str(index), index))
    (tmp_path / "shard-00001.json").unlink()
    (tmp_path / "shard-00003.safetensors").unlink()
    assert [store.has_shard(index) for index in range(4)] == [True, False, True, False]
    assert store.count() == 1 and [pair.name for pair in store] == [
        "0"
    ]  # a gap ends the store: what follows is not yet known to be whole
    store.write_shard(1, made("1", 1))
    assert store.count() == 3 and [pair.name for pair in store] == ["0", "1", "2"]


def test_cleaning_leaves_the_manifest_that_another_process_writes(tmp_path: Path) -> None:
    for name in (".shard-00000.json.host.1.0.part", ".manifest.json.host.2.0.part", "manifest.json"):
        (tmp_path / name).touch()
    PairStore(tmp_path).clean()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".manifest.json.host.2.0.part", "manifest.json"]


def test_spread_reaches_over_the_whole_store(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    store.write_shard(0, made("abc"))
    store.write_shard(2, made("de"))  # the others are being made elsewhere
    assert [pair.name for pair in store.sample_evenly(3)] == ["a", "b", "d"]
    assert [pair.name for pair in store.sample_evenly(9)] == ["a", "b", "c", "d", "e"]
    with pytest.raises(InputError, match="no pairs in .* yet"):
        PairStore(tmp_path / "absent").sample_evenly(1)


def test_what_cannot_be_read_is_a_line(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    store.write_shard(0, made("a"))
    store.path(0).write_bytes(store.path(0).read_bytes()[:-9])
    with pytest.raises(StoreError, match="shard-00000.safetensors cannot be read .*delete it"):
        list(store)
    store.path(0, "json").write_text("[", encoding="utf-8")
    with pytest.raises(StoreError, match="shard-00000.json cannot be read"):
        list(store)


def test_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write .*file"):
        PairStore(tmp_path / "file").write_shard(0, made("a"))

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stores.os, "replace", full)
    with pytest.raises(OutputError, match="shard-00000.safetensors cannot be written: No space left"):
        PairStore(tmp_path / "full").write_shard(0, made("a"))
    assert list((tmp_path / "full").iterdir()) == []


def test_of_many_manifests_one_is_created(tmp_path: Path) -> None:
    store = PairStore(tmp_path / "new")
    assert store.create_manifest({"seed": 1}) and not store.create_manifest({"seed": 2})
    assert store.manifest() == {"seed": 1}
    assert [path.name for path in store.folder.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("broken", ["save", "replace"])
def test_a_kill_while_writing_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Cut off before the tensors are whole, or before they have their name."""
    store = PairStore(tmp_path)

    def cut(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stores if broken == "save" else stores.os, broken, cut)
        with pytest.raises(KeyboardInterrupt):
            store.write_shard(0, made("a"))
    assert not store.has_shard(0) and list(store) == []
    assert not (tmp_path / "shard-00000.safetensors").exists()
    store.write_shard(0, made("a"))
    assert len(list(store)) == 1


def test_a_photograph_whose_name_is_not_utf_8_comes_back(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    store.write_manifest({"photographs": ["caf\udce9", "caf\u00e9"]})
    assert store.manifest()["photographs"] == ["caf\udce9", "caf\u00e9"]
    assert "caf\u00e9" in (tmp_path / "manifest.json").read_text(encoding="utf-8")


def test_manifest_round_trip(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    with pytest.raises(InputError, match="no manifest.json in .*fluxsr pairs invert"):
        store.manifest()
    store.write_manifest({"mode": "invert", "count": 3, "round_trip_rmse": 0.1})
    assert store.manifest() == {"mode": "invert", "count": 3, "round_trip_rmse": 0.1}


def test_an_absent_folder_is_an_empty_store(tmp_path: Path) -> None:
    assert list(PairStore(tmp_path / "absent")) == []
