"""README.md's commands are true: the first is run as it stands, the second is what CI runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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


def ci_lines() -> list[str]:
    """What .ci/run executes, line by line, without indentation."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    return [line.strip() for line in script.splitlines()]


@pytest.fixture(scope="module")
def upscaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of examples/ in which README's first command has been run, offline."""
    place = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", place / "examples")
    program, *arguments = shlex.split(command("upscale"))
    assert program == "fluxsr"
    start = "import sys; from fluxsr.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", start, *arguments],
        cwd=place,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=600,  # against hanging only: a busy machine is no error
    )
    assert done.returncode == 0, f"{command('upscale')}\n{done.stdout}\n{done.stderr}"
    return place


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


def test_ci_runs_both_commands_as_written() -> None:
    assert any(command("upscale") in line for line in ci_lines())
    assert command("pytest") == "python -m pytest"
    assert ci_lines()[-1] == command("pytest"), "pytest's closing line must be the last one printed"


def test_pictures_and_pages_that_the_readme_points_to_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    missing = [t for t in targets if "://" not in t and not (ROOT / t).exists()]
    assert not missing, f"README.md points to files that are not there: {missing}"
