"""``fluxsr push``: what it prints, what it uploads, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import fluxsr
from fluxsr.backbones.places import WEIGHTS_FILE
from fluxsr.cli.main import app


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
    assert "warning: no licence is known, so" in push(unknown, "--dry-run").stderr
    assert "no licence is known" not in push(unknown, "--dry-run", "--license", "mit").stderr


def test_failures_are_one_line(folder: Path, fake_hub: Any) -> None:
    fake_hub.repositories["owner/name"], fake_hub.read_only = {}, {"owner/name"}
    failed = push(folder)
    assert failed.exit_code == 1 and "Traceback" not in failed.output
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert "your token may not write there" in line
    wrong = CliRunner().invoke(app, ["push", str(folder), "--repo-id", "name"])
    assert wrong.exit_code == 2 and "write owner/name" in wrong.stderr


@pytest.mark.slow
def test_as_a_process_that_finds_the_hub_by_its_environment(folder: Path, fake_hub: Any, tmp_path: Path) -> None:
    """Nothing of huggingface_hub is replaced here: HF_ENDPOINT and HF_TOKEN are all it gets."""
    environment = os.environ | {"PYTHONPATH": str(Path(fluxsr.__file__).parents[1]), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_ENDPOINT": fake_hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    push = [sys.executable, "-m", "fluxsr", "push", str(folder), "--repo-id", "owner/name"]
    pull = [sys.executable, "-c", "import fluxsr; print(fluxsr.Adapter.from_pretrained('owner/name').config.t_l)"]
    for command, expected in ((push, f"{fake_hub.url}/owner/name"), (pull, "0.25")):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == expected
