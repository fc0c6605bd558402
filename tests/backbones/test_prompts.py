from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fluxsr.backbones.prompts import FILE, FixedPrompt, load_prompt, random_prompt
from fluxsr.errors import ModelError

EMBEDS, POOLED = torch.randn(1, 5, 8), torch.randn(1, 6)


class Touch:
    """A pickle that creates a file when it is unpickled carelessly."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def error_of(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_prompt(folder)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    return message


def write(folder: Path, t5: Any = EMBEDS, clip: Any = POOLED) -> None:
    torch.save(t5, folder / "t5_embedding.pth")
    torch.save(clip, folder / "clip_embedding.pth")


def test_a_prompt_survives_its_file(tmp_path: Path) -> None:
    FixedPrompt(EMBEDS.bfloat16(), POOLED[:, ::2]).save(tmp_path)  # a view too
    loaded = load_prompt(tmp_path)
    assert torch.equal(loaded.prompt_embeds, EMBEDS.bfloat16()) and torch.equal(
        loaded.pooled_prompt_embeds, POOLED[:, ::2]
    )


def test_its_text_travels_with_it(tmp_path: Path) -> None:
    FixedPrompt(EMBEDS, POOLED, "scharf, ä").save(tmp_path)
    assert load_prompt(tmp_path).text == "scharf, ä"
    FixedPrompt(EMBEDS, POOLED).save(tmp_path)
    assert load_prompt(tmp_path).text == ""


def test_to_changes_both_tensors_and_not_the_original() -> None:
    prompt = FixedPrompt(EMBEDS, POOLED, "sharp")
    half = prompt.to("cpu", torch.bfloat16)
    assert half.text == "sharp"
    assert half.prompt_embeds.dtype == half.pooled_prompt_embeds.dtype == torch.bfloat16
    assert prompt.prompt_embeds.dtype == torch.float32


@pytest.mark.parametrize(
    ("t5", "clip"),
    [
        (EMBEDS, POOLED),
        (EMBEDS[0], POOLED[0]),
        ({"embedding": EMBEDS}, {"embedding": POOLED[0], "prompt": "sharp"}),
    ],
    ids=["with batch axis", "without", "in a dict"],
)
def test_pth_files_are_read_in_every_usual_form(t5: Any, clip: Any, tmp_path: Path) -> None:
    write(tmp_path, t5, clip)
    loaded = load_prompt(tmp_path)
    assert torch.equal(loaded.prompt_embeds, EMBEDS) and torch.equal(loaded.pooled_prompt_embeds, POOLED)


def test_our_own_file_is_preferred(tmp_path: Path) -> None:
    write(tmp_path, EMBEDS + 1, POOLED + 1)
    FixedPrompt(EMBEDS, POOLED).save(tmp_path)
    assert torch.equal(load_prompt(tmp_path).prompt_embeds, EMBEDS)


def test_code_in_a_pickle_never_runs(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    write(tmp_path, Touch(touched))
    error_of(tmp_path)
    (tmp_path / "t5_embedding.pth").write_bytes(pickle.dumps(Touch(touched)))  # not torch's zip
    error_of(tmp_path)
    assert not touched.exists()
    Touch(touched).__reduce__()[0](touched)
    assert touched.exists(), "it would have run"


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x05"], ids=["empty", "text", "truncated"])
def test_an_unreadable_pth_is_one_line(content: bytes, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "clip_embedding.pth").write_bytes(content)
    assert "cannot be read" in error_of(tmp_path)


def test_an_unreadable_safetensors_is_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\x00" * 20)
    assert "cannot be read" in error_of(tmp_path)


def test_nothing_there_names_what_is_expected(tmp_path: Path) -> None:
    assert FILE in error_of(tmp_path)
    torch.save(EMBEDS, tmp_path / "t5_embedding.pth")  # one of two
    assert "clip_embedding.pth" in error_of(tmp_path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    save_file({"prompt_embeds": EMBEDS}, tmp_path / FILE)
    assert "has no 'pooled_prompt_embeds'" in error_of(tmp_path)


def test_wrong_shapes_are_shown(tmp_path: Path) -> None:
    save_file({"prompt_embeds": EMBEDS.repeat(2, 1, 1), "pooled_prompt_embeds": POOLED}, tmp_path / FILE)
    assert "(2, 5, 8) and (1, 6); expected (1,L,D) and (1,P)" in error_of(tmp_path)
    (tmp_path / FILE).unlink()
    write(tmp_path, POOLED[0], POOLED)
    assert "(6,)" in error_of(tmp_path)


def test_a_dict_with_more_than_one_tensor_is_ambiguous(tmp_path: Path) -> None:
    write(tmp_path, {"a": EMBEDS, "b": EMBEDS})
    assert "holds 2 tensors; expected one" in error_of(tmp_path)


def test_something_else_than_a_tensor_is_named(tmp_path: Path) -> None:
    write(tmp_path, [1.0, 2.0])
    assert "holds a list" in error_of(tmp_path)


def test_random_prompts_come_from_the_generator_alone() -> None:
    one, other = (random_prompt(3, 16, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(one.prompt_embeds, other.prompt_embeds) and one.prompt_embeds.shape == (1, 3, 16)
    assert one.pooled_prompt_embeds.shape == (1, 16)
