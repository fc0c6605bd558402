"""Who makes what: shards, processes, devices."""

from __future__ import annotations

import pytest

from fluxsr.errors import InputError
from fluxsr.pairs.pair_specs import PairSpec, digest, own_device, rank_and_world_size, shards


def test_shards_cover_every_pair_once() -> None:
    parts = shards(10, 4)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [k for part in parts for k in part] == list(range(10))


def test_place_is_the_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert rank_and_world_size() == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert rank_and_world_size() == (2, 3)
    for rank, world in (("3", "3"), ("-1", "2"), ("x", "2")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", world)
        with pytest.raises(InputError, match=f"RANK is {rank} and WORLD_SIZE {world}"):
            rank_and_world_size()


def test_a_process_takes_its_own_gpu_and_leaves_named_devices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert own_device("auto") == "auto"
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert own_device("auto") == "cuda:2" and own_device("cuda") == "cuda:2"
    assert own_device("cuda:1") == "cuda:1" and own_device("cpu") == "cpu"


def test_digest_tells_lists_apart() -> None:
    one = [PairSpec("a", 0, 5, "fox"), PairSpec("b", 1, 6, "owl")]
    assert digest(one) == digest(list(one))
    assert len({digest(one), digest(one[::-1]), digest(one[:1]), digest([one[0], PairSpec("b", 1, 6, "cat")])}) == 4
