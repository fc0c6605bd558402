"""Shell completion of commands, options and their values."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from fluxsr.cli.main import app


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["upscale", "--color-fix", ""], {"wavelet", "adain", "none"}),
        (["upscale", "--color-fix", "w"], {"wavelet"}),
        (["push", "--dry"], {"--dry-run"}),
        ([""], {"upscale", "evaluate", "fit-niqe", "push"}),
    ],
)
def test_words_that_the_shell_offers(words: list[str], offered: set[str]) -> None:
    environment = {
        "_FLUXSR_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["fluxsr", *words]),
        "COMP_CWORD": str(len(words)),
    }
    found = set(CliRunner().invoke(app, prog_name="fluxsr", env=environment).stdout.split())
    assert offered <= found if words == [""] else offered == found


def test_completion_is_in_the_help() -> None:
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout
