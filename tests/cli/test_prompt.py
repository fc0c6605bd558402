"""``fluxsr prompt``: what it saves is what the encoders give, and training reads it."""

from __future__ import annotations

from pathlib import Path

import torch
from typer.testing import CliRunner, Result

from fluxsr.backbones.prompts import load_prompt
from fluxsr.backbones.text import encode_prompts
from fluxsr.cli.main import app
from fluxsr.errors import ModelError, OutputError

TEXT = "a sharp photograph, rich in detail"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["prompt", *map(str, arguments), "--device", "cpu"])


def test_the_embeddings_are_the_encoders(text_model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "prompt"
    result = run(TEXT, "--model", text_model_folder, "-o", out, "--tokens", "24")
    assert result.exit_code == 0 and "prompt of (1, 24, 16), (1, 16) in" in result.stdout, result.output
    expected = encode_prompts(text_model_folder, [TEXT], torch.device("cpu"), torch.bfloat16, 24)([TEXT])
    found = load_prompt(out)
    assert torch.equal(found.prompt_embeds, expected.prompt_embeds)
    assert torch.equal(found.pooled_prompt_embeds, expected.pooled_prompt_embeds)
    assert found.text == TEXT
    assert found.prompt_embeds.dtype == torch.bfloat16 and bool(torch.isfinite(found.prompt_embeds).all())
    assert run("", "--model", text_model_folder, "-o", tmp_path).exit_code == 0
    assert load_prompt(tmp_path).prompt_embeds.shape == (1, 512, 16), "an empty text is a prompt, too"


def test_no_encoders_and_nowhere_to_write(model_folder: Path, text_model_folder: Path, tmp_path: Path) -> None:
    result = run(TEXT, "--model", model_folder, "-o", tmp_path / "out")
    assert isinstance(result.exception, ModelError) and "has no text_encoder/" in str(result.exception)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    result = run(TEXT, "--model", text_model_folder, "-o", tmp_path / "file", "--tokens", "8")
    assert isinstance(result.exception, OutputError) and "cannot write" in str(result.exception)
