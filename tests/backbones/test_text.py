"""Prompts through tiny CLIP and T5 encoders of FLUX.1-dev's classes: what FluxPipeline gives, batch by batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from fluxsr.backbones.text import encode_prompts
from fluxsr.errors import ModelError

CPU = torch.device("cpu")
PROMPTS = ["a red fox in tall grass, flash", "a bowl of ramen", "two squirrels, moonlight"]


def test_embeddings_are_those_of_flux_pipeline(text_model_folder: Path) -> None:
    encoded = encode_prompts(text_model_folder, PROMPTS, CPU, torch.float32, tokens=24, batch=2)
    pipe = FluxPipeline.from_pretrained(text_model_folder, vae=None, torch_dtype=torch.float32)
    with torch.no_grad():
        states, pooled, _ = pipe.encode_prompt(prompt=PROMPTS, device=CPU, max_sequence_length=24)
    found = encoded(PROMPTS)
    torch.testing.assert_close(found.prompt_embeds, states)
    torch.testing.assert_close(found.pooled_prompt_embeds, pooled)
    assert found.prompt_embeds.shape == (3, 24, 16) and found.pooled_prompt_embeds.shape == (3, 16)
    assert not torch.equal(found.prompt_embeds[0], found.prompt_embeds[1])


def test_texts_are_found_again_in_any_order(text_model_folder: Path) -> None:
    encoded = encode_prompts(text_model_folder, PROMPTS, CPU, torch.float32, tokens=8)
    some = encoded([PROMPTS[2], PROMPTS[0], PROMPTS[2]])
    assert torch.equal(some.prompt_embeds[0], some.prompt_embeds[2])
    assert torch.equal(some.prompt_embeds[1], encoded([PROMPTS[0]]).prompt_embeds[0])


def test_embeddings_keep_the_encoders_dtype_and_leave_no_file(text_model_folder: Path, tmp_path: Path) -> None:
    encoded = encode_prompts(text_model_folder, PROMPTS, CPU, torch.bfloat16, tokens=8, spool=tmp_path)
    assert encoded.prompt_embeds.dtype == torch.bfloat16 and bool(torch.isfinite(encoded.prompt_embeds).all())
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_encoders_is_named(model_folder: Path) -> None:
    with pytest.raises(ModelError, match="has no text_encoder/; use a model with text encoders"):
        encode_prompts(model_folder, PROMPTS, CPU, torch.float32)


def test_broken_encoders_are_one_line(text_model_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(text_model_folder, folder)
    (folder / "text_encoder" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot load text encoders of .*broken") as caught:
        encode_prompts(folder, PROMPTS, CPU, torch.float32)
    assert "\n" not in str(caught.value)
