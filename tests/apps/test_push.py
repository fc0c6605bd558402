"""``fluxsr push``: what it prints, what it uploads, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fluxsr.apps.cli import app
from fluxsr.backbone.adapter import WEIGHTS_FILE


@pytest.fixture
def folder(make_adapter: Callable[..., Path]) -> Path:
    return make_adapter(base="owner/base", licences=[{"model": "owner/base", "name": "mit"}])


def push(folder: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["push", str(folder), "--repo-id", "owner/name", *more])


def test_a_push(folder: Path, fake_hub: Any) -> None:
    done = push(folder, "--private", "--message", "first")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{fake_hub.url}/owner/name\n" and f"{WEIGHTS_FILE}: " in done.stderr
    assert fake_hub.repositories["owner/name"][WEIGHTS_FILE] == (folder / WEIGHTS_FILE).read_bytes()
    assert "owner/name" in fake_hub.private and fake_hub.commits[0][1]["summary"] == "first"


def test_a_dry_run_is_the_card_and_nothing_else(folder: Path, fake_hub: Any) -> None:
    done = push(folder, "--dry-run")
    assert done.exit_code == 0 and done.stdout.startswith("---\n") and "license: mit" in done.stdout
    assert f"{WEIGHTS_FILE}: {(folder / WEIGHTS_FILE).stat().st_size:,} bytes\n" in done.stderr
    assert not fake_hub.repositories


def test_no_known_licence_is_a_warning(make_adapter: Callable[..., Path], fake_hub: Any) -> None:
    unknown = make_adapter("unknown", base="owner/nowhere")
    assert "warning: no licence is known for it" in push(unknown, "--dry-run").stderr
    assert "no licence is known" not in push(unknown, "--dry-run", "--license", "mit").stderr


def test_failures_are_one_line(folder: Path, fake_hub: Any) -> None:
    fake_hub.repositories["owner/name"], fake_hub.read_only = {}, {"owner/name"}
    failed = push(folder)
    assert failed.exit_code == 1 and "Traceback" not in failed.output
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert "your token may not write there" in line
    wrong = CliRunner().invoke(app, ["push", str(folder), "--repo-id", "name"])
    assert wrong.exit_code == 2 and "write owner/name" in wrong.stderr
