"""The manifest: created once however many try, and strict about what must agree."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from fluxsr.errors import InputError
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.generate import sample_specs
from fluxsr.pairs.manifest import claim, fingerprint, finish, refuse_others, settings_of
from fluxsr.pairs.store import PairStore, TeacherPair


def pair(name: str, errors: tuple[float, float] | None = None) -> TeacherPair:
    return TeacherPair(name, torch.zeros(4, 2, 2), torch.ones(4, 2, 2), round_trip=errors)


def test_of_many_at_once_one_settles_it(tmp_path: Path) -> None:
    """All with the same settings succeed; of different ones, whoever came first keeps the others out."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: claim(PairStore(tmp_path / "same"), {"seed": 1}), range(32)))

        def differing(seed: int) -> bool:
            try:
                claim(PairStore(tmp_path / "differing"), {"seed": seed})
            except InputError:
                return False
            return True

        assert sum(pool.map(differing, range(32))) == 1


def test_places_may_differ_and_settings_may_not(options: Callable[..., PairsConfig], tmp_path: Path) -> None:
    config, store = options(), PairStore(tmp_path)
    store.write_manifest(settings_of(config, sample_specs(config)))
    for elsewhere in ({"base": "there"}, {"device": "cuda"}, {"licence": "x"}):
        refuse_others(store, settings_of(options(**elsewhere), sample_specs(config)))
    for other in ({"seed": 1}, {"batch": 3}, {"precision": "bf16"}, {"shift": "dynamic"}):
        with pytest.raises(InputError, match=f"{next(iter(other))} .* there, .* here"):
            refuse_others(store, settings_of(options(**other), sample_specs(options(**other))))


def test_the_summary_waits_for_every_shard(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    store.write_manifest({"count": 3})
    store.write_shard(1, [pair("c", (0.5, 1.0))])
    assert finish(store, 2) is None
    store.write_shard(0, [pair("a", (0.1, 1.2)), pair("b")])
    (tmp_path / ".shard-00000.json.gone.1.0.part").write_text("torn", encoding="utf-8")
    manifest = finish(store, 2)
    assert manifest is not None and manifest == store.manifest() and manifest["pairs"] == 3
    assert manifest["round_trips"] == {"a": [0.1, 1.2], "c": [0.5, 1.0]}
    assert manifest["round_trip_rmse"] == pytest.approx(((0.01 + 0.25) / 2) ** 0.5, abs=1e-4)
    assert list(tmp_path.glob(".*")) == [] and finish(store, 2) == manifest


def test_fingerprint_tells_one_weight_from_another(transformer: Any) -> None:
    before = fingerprint(transformer)
    assert before == fingerprint(transformer)
    bias = transformer.proj_out.bias
    with torch.no_grad():
        bias[0] += 1
        assert fingerprint(transformer) != before
        bias[0] -= 1
