"""The marks of a model change with what its results depend on, and with nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from fluxsr.backbones import identity
from fluxsr.backbones.adapter import load_config
from fluxsr.backbones.identity import contents_of, mark_of
from fluxsr.backbones.places import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE
from fluxsr.errors import ModelError

Make = Callable[..., Path]


def retrain(file: Path) -> None:
    """Other weights of the same names and shapes; neither the size of the file nor its times change."""
    before = file.stat()
    save_file({name: tensor * 1.5 for name, tensor in load_file(file).items()}, file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_adapter_is_known_by_its_contents(model_folder: Path, make_adapter: Make) -> None:
    adapter = make_adapter()
    before = contents_of(str(model_folder), str(adapter))
    copy = shutil.copytree(adapter, adapter.with_name("copy"))
    assert contents_of(str(model_folder), str(copy)) == before, "where it lies does not matter"
    retrain(adapter / WEIGHTS_FILE)
    weights = contents_of(str(model_folder), str(adapter))
    assert weights != before
    config = load_config(adapter)
    config.t_l = 0.5
    config.save(adapter)
    assert contents_of(str(model_folder), str(adapter)) not in (before, weights)


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_model_is_known_by_its_contents(model_folder: Path, tmp_path: Path, part: str) -> None:
    model = shutil.copytree(model_folder, tmp_path / "model")
    before = contents_of(str(model))
    assert before == contents_of(str(model_folder))
    retrain(next((model / part).glob("*.safetensors")))
    assert contents_of(str(model)) != before
    assert f"model/{part}/config.json" in before and f"adapter/{INDEX_FILE}" in before


def test_what_does_not_belong_to_a_model_does_not_count(model_folder: Path, tmp_path: Path) -> None:
    model = shutil.copytree(model_folder, tmp_path / "model")
    before = contents_of(str(model))
    (model / "README.md").write_text("another text")
    (model / "metrics.jsonl").write_text("{}")
    assert contents_of(str(model)) == before


def test_a_transformer_s_file_counts_with_what_lies_beside_it(model_folder: Path, tmp_path: Path) -> None:
    for name in ("a.safetensors", "ae.safetensors", "another.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    load_config(model_folder).save(tmp_path)
    before = contents_of(str(tmp_path / "a.safetensors"))
    (tmp_path / "another.safetensors").write_bytes(b"of another model")
    assert contents_of(str(tmp_path / "a.safetensors")) == before
    for name in ("a.safetensors", "ae.safetensors", CONFIG_FILE):
        (tmp_path / name).write_bytes(b"changed")
        assert contents_of(str(tmp_path / "a.safetensors")) != before, name
        before = contents_of(str(tmp_path / "a.safetensors"))
    assert contents_of(str(tmp_path / "a.safetensors"), None, str(model_folder)) != before


def test_a_large_file_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(3 * 2**20))
    monkeypatch.setattr(identity, "HASHED", 2**20)
    before = mark_of(file)
    os.utime(file, ns=(1, 1))
    assert mark_of(file) != before, "its time of change stands for what is not read"
    monkeypatch.setattr(identity, "HASHED", 2**30)
    assert len({mark_of(file), before}) == 2 and " " not in mark_of(file)


def test_a_model_of_the_hub_is_known_by_its_commit(fake_hub: Any, make_adapter: Make, model_folder: Path) -> None:
    adapter = make_adapter()
    files = {path.name: path.read_bytes() for path in adapter.iterdir()}
    fake_hub.repositories["me/adapter"] = dict(files)
    before = contents_of(str(model_folder), "me/adapter")
    assert contents_of(str(model_folder), "me/adapter") == before
    fake_hub.repositories["me/adapter"][WEIGHTS_FILE] = b"other weights"
    assert contents_of(str(model_folder), "me/adapter") != before
    with pytest.raises(ModelError, match="me/nothing is neither a folder here nor a model on the Hub"):
        contents_of(str(model_folder), "me/nothing")


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        contents_of(str(tmp_path / "none"))


def test_nothing_heavy_is_imported() -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'peft'}"
    code = f"import sys, fluxsr.backbones.identity; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
