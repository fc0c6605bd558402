"""``fluxsr models``: its numbers are those of the plans, and README's table is its output."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fluxsr.backbones.catalogue import FLUX_DEV, KLEIN, models, needs_of
from fluxsr.cli.main import app

README = Path(__file__).parents[2] / "README.md"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_readme_s_table_is_the_command_s() -> None:
    block = README.read_text(encoding="utf-8").split("<!-- fluxsr models --gpus --markdown -->\n")[1].split("\n\n")[0]
    assert block + "\n" == run("--gpus", "--markdown"), "run fluxsr models --gpus --markdown and copy what it prints"


@pytest.mark.parametrize(
    ("base", "transformer", "vae"), [(FLUX_DEV, 8_622_754_880, 83_819_683), (KLEIN, 3_704_941_056, 84_046_372)]
)
def test_what_is_counted_is_the_folded_model(base: str, transformer: int, vae: int) -> None:
    needs = needs_of(next(model for model in models() if model.base == base))
    assert (needs.transformer, needs.vae) == (transformer, vae)


def test_every_model_says_its_licence_and_its_source() -> None:
    assert all(model.licence and model.get for model in models())
    text = run("--markdown")
    assert "Apache-2.0" in text and "no licence" in text and "18.7 / 10.7 / 6.8 / 3.5" in text
    assert "fluxsr adapter import FOLDER" in text
