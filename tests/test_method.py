"""docs/method.md's table is true: every name is a function of ours, and every test is there."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

ROOT = Path(__file__).parents[1]
NAME = re.compile(r"`([^`]+)`")


def rows() -> list[tuple[str, list[str], list[str]]]:
    """Equation, names and tests of every row; a name that begins with a dot stands beside the one before it."""
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| equation \| function \| test \|\n\|[ |-]+\|\n((?:\|.*\|\n)+)", text)
    found = []
    for line in table.splitlines():
        equation, functions, tests = (cell.strip() for cell in line.strip("|").split(" | "))
        names: list[str] = []
        for name in NAME.findall(functions):
            names.append(names[-1].rpartition(".")[0] + name if name.startswith(".") else name)
        found.append((equation, names, NAME.findall(tests)))
    return found


@pytest.mark.parametrize(("equation", "names", "tests"), rows(), ids=[row[0] for row in rows()])
def test_functions_and_tests_exist(equation: str, names: list[str], tests: list[str]) -> None:
    assert names and tests, equation
    for name in names:
        assert callable(resolve_name(f"fluxsr.{name}")), f"{name} is a module, not a function"
    for test in tests:
        assert (ROOT / test).exists(), test


def test_the_table_is_whole() -> None:
    named = {name for _, names, _ in rows() for name in names}
    assert {"flow.ftd_residual", "losses.ftd.ftd_loss", "losses.ftd.ftd_by_time", "backbones.latents.decode"} <= named
