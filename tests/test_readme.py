"""README.md's commands are true. .ci/run runs both as they stand; here the upscaling and the Python lines are run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from fluxsr.cli.main import app

ROOT = Path(__file__).parents[1]
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


def block(name: str) -> str:
    """The fenced block that follows ``<!-- test: name -->`` in README.md."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"<!-- test: {name} -->\s*```\w*\n(.*?)\n```", text, flags=re.DOTALL)
    assert len(blocks) == 1, f"README.md has {len(blocks)} blocks marked 'test: {name}', expected 1"
    return str(blocks[0]).strip()


def command(name: str) -> str:
    """Such a block of one line."""
    found = block(name)
    assert "\n" not in found, f"the block marked 'test: {name}' has more than one line"
    return found


@pytest.fixture
def upscaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of examples/ in which the second half of README's first command was run, without a network."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    install, upscale = command("upscale").split(" && ")
    assert install == "pip install ."
    program, *arguments = shlex.split(upscale)
    assert program == "fluxsr"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return tmp_path


@pytest.mark.slow  # .ci/run runs the whole command
def test_first_command_makes_four_times_larger_pictures(upscaled: Path) -> None:
    sources = [p for p in (upscaled / "examples").rglob("*") if p.suffix.lower() in PICTURES]
    assert sources, "examples/ holds no picture"
    for source in sources:
        (output,) = (upscaled / "upscaled").rglob(f"{source.stem}*")
        with Image.open(source) as lr, Image.open(output) as hr:
            expected = (4 * lr.width, 4 * lr.height)
            assert hr.size == expected, f"{source.name}: {hr.size}, expected {expected}"


def test_the_python_lines_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Image.open(ROOT / "examples" / "church_lr.jpg") as image:
        image.crop((0, 0, 32, 48)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block("python"), names)
    with Image.open("photo_x4.png") as made:
        assert made.size == names["image"].size == (128, 192)


def test_the_second_command_installs_what_the_tests_need() -> None:
    assert command("develop") == 'pip install -e ".[dev]" && python -m pytest'


@pytest.mark.skipif(not shutil.which("awk") or os.name == "nt", reason="a shell script")
def test_ci_reads_both_commands_from_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (function,) = re.findall(r"^readme\(\).*?^}", script, flags=re.DOTALL | re.MULTILINE)
    for name in ("upscale", "develop"):
        assert f'{name}="$(readme {name})"' in script
        found = subprocess.run(["bash", "-c", f"{function}\nreadme {name}"], cwd=ROOT, capture_output=True, text=True)
        assert found.stdout.strip() == command(name)
    assert script.splitlines()[-1] == 'eval "$tests"', "pytest's closing line must be the last one printed"


def test_the_first_screen_has_a_picture_and_two_commands() -> None:
    screen = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Use it")[0]
    assert screen.count("![") == 1 and len(screen.splitlines()) < 40
    assert re.findall(r"```\w*\n(.*?)\n```", screen, flags=re.DOTALL) == [command("upscale"), command("develop")]


def test_pictures_and_pages_that_the_readme_points_to_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    missing = [t for t in targets if "://" not in t and not (ROOT / t).exists()]
    assert not missing, f"README.md points to files that are not there: {missing}"
