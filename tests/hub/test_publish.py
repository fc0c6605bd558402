"""Push and pull through a Hub on localhost (tests/fake_hub.py): what was there comes back, or one clear line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import fluxsr
from fluxsr.backbones import loading
from fluxsr.backbones.places import COMPONENT_FILE, CONFIG_FILE, PEFT_FILES, WEIGHTS_FILE
from fluxsr.backbones.prompts import FILE
from fluxsr.errors import FluxSRError, InputError, ModelError, OutputError
from fluxsr.hub.publish import Adapter, push_folder
from fluxsr.single import load

REPO = "owner/name"


@pytest.fixture
def adapter(make_adapter: Callable[..., Path], fake_hub: Any) -> Adapter:
    """An adapter whose base is on the fake Hub, under a licence."""
    fake_hub.repositories["owner/base"] = {"README.md": b"---\nlicense: apache-2.0\n---\n"}
    return Adapter.from_pretrained(make_adapter(t_l=0.5, base="owner/base"))


def error_of(kind: type[FluxSRError], work: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        work(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def step(model: Path, adapter: Any) -> torch.Tensor:
    pipe = load(model, adapter=adapter, device="cpu", dtype="fp32")
    return pipe(torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)), 2, output_type="pt").images


# There and back


def test_an_adapter_comes_back_as_it_was(adapter: Adapter, fake_hub: Any, model_folder: Path) -> None:
    assert adapter.push_to_hub(REPO) == f"{fake_hub.url}/{REPO}"
    assert set(fake_hub.repositories[REPO]) == {"README.md", "NOTICE", CONFIG_FILE, WEIGHTS_FILE, FILE}
    back = fluxsr.Adapter.from_pretrained(REPO)
    assert back.config == adapter.config and back.folder != adapter.folder
    for name in (WEIGHTS_FILE, FILE):
        before, after = load_file(adapter.folder / name), load_file(back.folder / name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), name
    expected = step(model_folder, adapter.folder)
    assert not torch.allclose(expected, step(model_folder, False), atol=1e-3)
    assert torch.equal(step(model_folder, REPO), expected), "by its id"
    assert torch.equal(step(model_folder, back), expected), "as an Adapter"
    assert os.fspath(back) == str(back.folder) and str(back) == REPO


def test_a_whole_model_comes_back_as_it_was(pipeline: Any, fake_hub: Any) -> None:
    assert pipeline.push_to_hub(REPO, license="mit").endswith(REPO)
    files = fake_hub.repositories[REPO]
    assert {"model_index.json", "transformer/config.json", "vae/config.json", COMPONENT_FILE} <= set(files)
    card = files["README.md"].decode()
    assert "license: mit" in card and f'fluxsr.load("{REPO}")' in card and "adapter" not in card.split("---")[1]
    back = loading.load(REPO, device="cpu", dtype="fp32", folded=False)
    for part in ("transformer", "vae"):
        expected = getattr(pipeline, part).state_dict()
        found = getattr(back, part).state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected), part


def test_saving_pushes_when_it_is_asked_to(pipeline: Any, fake_hub: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "m", push_to_hub=True, repo_id=REPO, private=True, commit_message="first")
    assert REPO in fake_hub.private and fake_hub.commits[0][1]["summary"] == "first"
    assert "pipeline_tag: image-to-image" in fake_hub.repositories[REPO]["README.md"].decode()


def test_a_second_push_leaves_nothing_of_the_first_that_would_be_loaded(adapter: Adapter, fake_hub: Any) -> None:
    stale = dict.fromkeys([PEFT_FILES[0], "transformer/config.json", "samples/church.jpg"], b"old")
    fake_hub.repositories[REPO] = {**stale, CONFIG_FILE: b"{}"}
    adapter.push_to_hub(REPO)
    assert {name for name in stale if name in fake_hub.repositories[REPO]} == {"samples/church.jpg"}, "not ours"
    assert adapter.push_to_hub(REPO, create_pr=True).endswith("/discussions/1")
    before = dict(fake_hub.repositories[REPO])
    assert "already exists and is public" in error_of(OutputError, adapter.push_to_hub, REPO, private=True)
    assert fake_hub.repositories[REPO] == before


def test_a_push_deletes_nothing_that_another_program_put_there(adapter: Adapter, fake_hub: Any) -> None:
    stale = dict.fromkeys([PEFT_FILES[0], "transformer/config.json", "samples/church.jpg"], b"theirs")
    fake_hub.repositories[REPO] = dict(stale)
    assert f"{REPO} holds {PEFT_FILES[0]}, transformer/config.json, which fluxsr did not put there" in error_of(
        OutputError, adapter.push_to_hub, REPO
    )
    assert fake_hub.repositories[REPO] == stale and not fake_hub.commits


# What is refused, each in one line


def test_without_a_login_and_without_the_right(
    adapter: Adapter, fake_hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub.repositories[REPO] = {}
    fake_hub.read_only.add(REPO)
    assert "your token may not write there" in error_of(OutputError, adapter.push_to_hub, REPO)
    assert "`hf auth login` with a token" in error_of(OutputError, adapter.push_to_hub, "owner/other", token="hf_wrong")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(adapter.folder / "none"))
    assert "`hf auth login` with a token" in error_of(OutputError, adapter.push_to_hub, "owner/other")
    assert not fake_hub.commits and fake_hub.repositories[REPO] == {}


def test_offline_and_nobody_there(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter.config.licences.append({"model": "owner/base", "name": "mit"})
    adapter.config.save(adapter.folder)  # so that nothing has to be asked about it
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "unset HF_HUB_OFFLINE" in error_of(OutputError, adapter.push_to_hub, REPO)
    assert "offline mode is on; unset HF_HUB_OFFLINE" in error_of(ModelError, Adapter.from_pretrained, REPO)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")  # a port that nobody listens on
    assert f"cannot push to {REPO}: " in error_of(OutputError, adapter.push_to_hub, REPO)
    assert "the Hub cannot be reached" in error_of(ModelError, Adapter.from_pretrained, REPO)


def test_not_there_private_gated_and_incomplete(adapter: Adapter, fake_hub: Any) -> None:
    missing = error_of(ModelError, Adapter.from_pretrained, "owner/nothing")
    assert missing.startswith("owner/nothing is neither a folder here nor a model on the Hub (or it is private)")
    fake_hub.repositories[REPO], fake_hub.gated = {}, {REPO}
    assert f"{REPO} is gated; accept its licence at" in error_of(ModelError, Adapter.from_pretrained, REPO)
    fake_hub.gated = set()
    assert f"no {CONFIG_FILE} in" in error_of(ModelError, Adapter.from_pretrained, REPO)
    (adapter.folder / WEIGHTS_FILE).unlink()
    assert f"no {WEIGHTS_FILE} in" in error_of(ModelError, Adapter.from_pretrained, adapter.folder)
    assert "no such folder" in error_of(ModelError, Adapter.from_pretrained, "./none").replace("model", "such")


@pytest.mark.parametrize("name", ["name", "a/b/c", "owner/na me", "-/-"])
def test_an_impossible_id(adapter: Adapter, name: str) -> None:
    assert "is not a repository id" in error_of(InputError, push_folder, adapter.folder, name)
