"""The road to a store: killed, shared, resumed, the bytes are the same; settings are never mixed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from fluxsr.errors import InputError
from fluxsr.imaging.photographs import DataConfig
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.make import make_pairs
from fluxsr.pairs.store import PairStore

Options = Callable[..., PairsConfig]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def recipe_file(config: PairsConfig, path: Path) -> str:
    path.write_text(yaml.safe_dump(asdict(config)), encoding="utf-8")
    return str(path)


def launch(arguments: list[str], **environment: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(sys.path)
    variables = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, *arguments], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_and_shared_by_two_it_becomes_what_one_makes_undisturbed(options: Options, tmp_path: Path) -> None:
    """Two processes at once; one dies by kill -9 in the middle of its second shard; a third, alone, goes on."""
    config = options(count=9, shard=2)
    make_pairs(config, tmp_path / "alone")
    recipe = recipe_file(config, tmp_path / "pairs.yaml")
    script = str(Path(__file__).with_name("killed.py"))
    out = tmp_path / "shared"
    first = launch([script, recipe, str(out), "99"], RANK="0", WORLD_SIZE="2")  # never killed
    second = launch([script, recipe, str(out), "3"], RANK="1", WORLD_SIZE="2")
    errors = [process.communicate(timeout=120)[1].decode() for process in (first, second)]
    assert first.returncode == 0 and second.returncode == -signal.SIGKILL, errors
    there = PairStore(out)
    assert [there.has_shard(k) for k in range(5)] == [True, True, True, False, True]
    assert len(list(out.glob(".*.part"))) == 1  # what was torn; it never gets a shard's name
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*")}
    make_pairs(config, out)
    assert contents(out) == contents(tmp_path / "alone")
    assert all((out / name).stat().st_mtime_ns == time for name, time in kept.items())  # nothing was made twice


@pytest.mark.slow
def test_accelerate_launches_it(options: Options, tmp_path: Path) -> None:
    config = options(count=5, shard=2)
    make_pairs(config, tmp_path / "alone")
    recipe = recipe_file(config, tmp_path / "pairs.yaml")
    command = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["-m", "fluxsr", "pairs", "generate", "--recipe", recipe, "--out", str(tmp_path / "shared")]
    process = launch(command)
    error = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 0, error
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def test_processes_leave_no_gap_and_no_overlap(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, one after another, the second first."""
    world = 2
    config = options(count=5, shard=2)
    make_pairs(config, tmp_path / "one")
    monkeypatch.setenv("WORLD_SIZE", str(world))
    for rank in reversed(range(world)):
        monkeypatch.setenv("RANK", str(rank))
        before = set(tmp_path.glob("many/shard-*"))
        make_pairs(config, tmp_path / "many")
        new = {int(path.stem[-5:]) for path in set(tmp_path.glob("many/shard-*")) - before}
        assert new == {k for k in range(3) if k % world == rank}
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_the_manifest_says_how_pairs_were_made(options: Options, tmp_path: Path) -> None:
    make_pairs(options(licence="ours", shift="dynamic", steps=2), tmp_path / "out")
    manifest = PairStore(tmp_path / "out").manifest()
    assert {key: manifest[key] for key in ("mode", "count", "steps", "solver", "window", "shard", "seed")} == {
        "mode": "sample", "count": 3, "steps": 2, "solver": "euler", "window": 4, "shard": 2, "seed": 0,
    }  # fmt: skip
    assert manifest["licence"]["name"] == "ours" and manifest["pairs"] == 3 and len(manifest["times"]) == 3
    assert {"torch", "diffusers", "transformers", "fluxsr"} < set(manifest["versions"])
    made_with = PairStore(tmp_path / "out").shard_info(1)["made_with"]
    assert made_with["torch"] == manifest["versions"]["torch"] and made_with["device"].startswith("cpu")
    assert (tmp_path / "out" / "contact_sheet.png").is_file()


def test_prompts_travel_with_their_pairs(options: Options, text_model_folder: Path, tmp_path: Path) -> None:
    config = options(base=str(text_model_folder), prompts="composer", text_tokens=8, guidance=3.5, count=3)
    make_pairs(config, tmp_path / "out")
    pairs = list(PairStore(tmp_path / "out"))
    assert all(pair.prompt.startswith("a photograph of ") for pair in pairs) and len({p.prompt for p in pairs}) == 3
    assert [pair.seed for pair in pairs] == [0, 1, 2]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert all(name.startswith(("shard-", "manifest.json", "contact_sheet.png")) for name in names)


def test_inversion_reports_every_photograph(
    options: Options, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = options(mode="invert", count=0, steps=4, data=DataConfig(shards=[str(photographs)]))
    make_pairs(config, tmp_path / "out")
    manifest = PairStore(tmp_path / "out").manifest()
    assert list(manifest["round_trips"]) == ["a", "b@3,6", "b@3,70", "c@4,9"]
    assert all(own < fresh for own, fresh in manifest["round_trips"].values())
    assert manifest["round_trip_rmse"] < manifest["fresh_noise_rmse"]
    printed = capsys.readouterr().out
    assert "round trip of 4 pairs: rmse" in printed and "0 no better than fresh noise" in printed


def test_what_is_finished_loads_no_teacher(options: Options, model_folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    config = options(base=str(base))
    make_pairs(config, tmp_path / "out")
    before = contents(tmp_path / "out")
    shutil.rmtree(base / "transformer")
    make_pairs(config, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_settings_are_never_mixed(options: Options, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_pairs(options(), out)
    with pytest.raises(InputError, match="pairs with other settings .steps 1 there, 2 here.; choose another --out"):
        make_pairs(options(steps=2), out)
    with pytest.raises(InputError, match="count 3 there, 4 here"):
        make_pairs(options(count=4), out)


def test_what_sampling_does_not_look_at_is_no_setting(options: Options, tmp_path: Path) -> None:
    make_pairs(options(), tmp_path / "out")
    before = contents(tmp_path / "out")
    make_pairs(options(crop=32, check=1), tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_retrained_teacher_is_another_teacher(options: Options, model_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    out = tmp_path / "out"
    make_pairs(options(base=str(base)), out)
    (weights,) = (base / "transformer").glob("*.safetensors")
    save_file({key: value * 1.01 for key, value in load_file(weights).items()}, weights, metadata={"format": "pt"})
    (out / "shard-00001.json").unlink()
    with pytest.raises(InputError, match="other settings .teacher_sha256 "):
        make_pairs(options(base=str(base)), out)
    make_pairs(options(), out)  # the first teacher, wherever it lies
    assert len(list(PairStore(out))) == 3


def test_shards_without_their_manifest_are_not_trusted(options: Options, tmp_path: Path) -> None:
    make_pairs(options(), tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(InputError, match="holds shards but no manifest.json; choose another --out"):
        make_pairs(options(), tmp_path / "out")


def test_more_processes_than_shards_have_nothing_to_load(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a process may start before any other has written the manifest."""
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    make_pairs(options(base="absent/model", prompts="composer"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 5}, "window is 5; .*packs 2x2 latents, so 2 must divide it"),
        ({"shard": 0}, "shard is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_options_that_cannot_be(options: Options, tmp_path: Path, changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_pairs(options(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()
