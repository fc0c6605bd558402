"""Shell completion: scripts for three shells, and values of options."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from fluxsr.cli.main import app


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="fluxsr", env=environment)


@pytest.mark.parametrize(
    ("shell", "words"),
    [("bash", "complete -o default -F"), ("zsh", "#compdef fluxsr"), ("fish", "complete --command fluxsr")],
)
def test_the_script_of_a_shell_is_printed(shell: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    shown = run("--show-completion")
    assert shown.exit_code == 0 and words in shown.stdout and "_FLUXSR_COMPLETE" in shown.stdout


def completed(*words: str) -> list[str]:
    line = " ".join(["fluxsr", *words])
    result = run(_FLUXSR_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words)))
    return result.stdout.split()


def test_values_of_an_option() -> None:
    assert completed("upscale", "--color-fix", "") == ["wavelet", "adain", "none"]
    assert completed("upscale", "--color-fix", "w") == ["wavelet"]


def test_commands_and_options() -> None:
    assert {"upscale", "evaluate", "push"} <= set(completed(""))
    assert completed("push", "--dry") == ["--dry-run"]


def test_it_is_in_the_help() -> None:
    assert "--install-completion" in run("--help").stdout
