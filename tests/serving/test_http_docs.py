"""docs/api.md agrees with the code, its examples run as they stand, and the container starts the server."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from fluxsr.cli import serve as command
from fluxsr.cli.main import app
from fluxsr.serving.errors import ERROR_CODES
from fluxsr.serving.http_body import OFFERED
from fluxsr.serving.limits import HttpLimits

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
KEY = "correct horse battery staple"
OUTPUTS = {
    "photo_x4.jpg": (80, 64),
    "photo_x2.png": (40, 32),
    "photo_x2.webp": (40, 32),
    "result.jpg": (80, 64),
}


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("curl"), reason="the examples are bash and curl")
def test_the_examples_run_as_they_stand(server: Any, tmp_path: Path, picture: Callable[..., bytes]) -> None:
    """Only the address is another one, and curl adds the key that the server of the tests asks for everywhere."""
    blocks = re.findall(r"<!-- test: curl -->\s*```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 5
    (tmp_path / "photo.jpg").write_bytes(picture(20, 16, "JPEG"))
    (tmp_path / ".curlrc").write_text(f'header = "Authorization: Bearer {KEY}"\nsilent\nshow-error\n')
    script = "set -euo pipefail\n" + "".join(blocks).replace("http://127.0.0.1:8000", server.url)
    environment = {**os.environ, "CURL_HOME": str(tmp_path), "HOME": str(tmp_path), "FLUXSR_API_KEY": KEY}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert {name: Image.open(tmp_path / name).size for name in OUTPUTS} == OUTPUTS
    assert json.loads((tmp_path / "job.json").read_text())["status"] in ("queued", "running", "done")


def test_the_page_names_every_option_limit_and_error() -> None:
    for name in (*OFFERED, *ERROR_CODES):
        assert f"`{name}`" in PAGE, name
    for field in fields(HttpLimits):
        assert f"`--{field.name.replace('_', '-')}`" in PAGE, field.name


def test_the_limits_of_the_command_line_are_those_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(["serve"], monkeypatch) == HttpLimits()
    given = [text for field in fields(HttpLimits) for text in (f"--{field.name.replace('_', '-')}", "7")]
    assert started(["serve", *given], monkeypatch) == HttpLimits(**{field.name: 7 for field in fields(HttpLimits)})  # type: ignore[arg-type]


def test_the_container_starts_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands exist, its time to stop exceeds the grace, and its /tmp holds uploads and results twice over."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert started(json.loads(re.findall(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)[-1]), monkeypatch) == HttpLimits()
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for service in services.values():
        limits = started(service["command"], monkeypatch)
        assert limits.grace < int(service["stop_grace_period"].removesuffix("s"))
        space = int(service["tmpfs"][0].split("size=")[1][0]) << 30
        assert 2 * (limits.places * limits.max_bytes + limits.keep_bytes) < space < int(service["mem_limit"][0]) << 30
    (index,) = (service["build"]["args"] for service in services.values() if isinstance(service["build"], dict))
    assert all(f"ARG {name}" in dockerfile for name in index)


def test_the_container_s_build_gets_the_files_that_it_copies() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    lines = re.findall(r"^COPY (?!--from)(.*)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    copied = {name for line in lines for name in shlex.split(line)[:-1]}
    assert copied == let_in and all((ROOT / name).exists() for name in copied)


def started(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> HttpLimits:
    """Return the limits that a command line serves with."""
    from fluxsr.serving import http_server

    seen: list[HttpLimits] = []
    monkeypatch.setattr(http_server, "serve", lambda options, limits, *rest: seen.append(limits))
    monkeypatch.setattr(command, "keys_of", lambda *_: [])
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return seen[0]
