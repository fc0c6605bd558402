"""Pipes and scripts: standard input and output, outputs beside their inputs, a line or a record for each file."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from fluxsr.cli.main import app


def picture(kind: str = "JPEG", side: int = 16) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(file, kind)
    return file.getvalue()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and the tiny pipeline in place of any model."""
    monkeypatch.setattr("fluxsr.single.load", lambda model, **options: pipeline)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def upscale(*arguments: str, sent: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["upscale", "--scale", "1.5", *arguments], input=sent)


def files(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("[!.]*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [(["-", "-o", "-", "--format", "png"], "PNG"), (["-"], "JPEG"), (["a.jpg", "-o", "-"], "JPEG")],
)
def test_standard_output_is_the_picture_alone(place: Path, arguments: list[str], kind: str) -> None:
    (place / "a.jpg").write_bytes(picture())
    result = upscale(*arguments, sent=picture())
    assert result.exit_code == 0, result.stderr
    with Image.open(io.BytesIO(result.stdout_bytes)) as image:
        assert (image.format, image.size) == (kind, (24, 24))
    assert "1 upscaled" in result.stderr and files(place) == {"a.jpg"}


def test_a_mask_and_another_size(place: Path) -> None:
    mask = Path("mask.png")
    Image.new("L", (16, 16)).save(mask)  # black
    plain = CliRunner().invoke(app, ["upscale", "-", "--format", "png", "--mask", str(mask)], input=picture())
    pixels = Image.open(io.BytesIO(plain.stdout_bytes)).getcolors()
    assert pixels == [(64 * 64, Image.open(io.BytesIO(picture())).getpixel((0, 0)))]
    for name in ("a.jpg", "in/b.png", "masks/b.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(picture())
    assert CliRunner().invoke(app, ["upscale", "a.jpg", "in", "--longest", "20", "--mask", "masks"]).exit_code == 0
    assert {"a_longest20.jpg", "in_longest20/b_longest20.png"} <= files(place)
    assert upscale("-", "--mask", "masks", sent=picture()).exit_code == 2


def test_standard_input_into_a_file(place: Path) -> None:
    for side in (16, 20):  # a second picture replaces the first
        assert upscale("-", "-o", "b.png", sent=picture(side=side)).exit_code == 0
        assert Image.open("b.png").size == (side * 3 / 2, side * 3 / 2)


@pytest.mark.parametrize(
    ("arguments", "sent", "code", "words"),
    [
        (["-"], b"", 1, "error: standard input is empty (0 bytes)"),
        (["-"], b"text", 1, "error: standard input is not an image that can be read"),
        (["missing.png", "-o", "-"], None, 1, "error: missing.png does not exist"),
        (["-", "a.png", "-o", "-"], None, 2, "'-' stands for one image, but there are 2 inputs"),
        (["-", "-o", "folder"], picture(), 2, "must be a file name such as photo.png"),
        (["-", "--json"], picture(), 2, "standard output cannot hold both the image and JSON"),
    ],
)
def test_a_pipe_that_cannot_work_is_one_line(arguments: list[str], sent: bytes, code: int, words: str) -> None:
    result = upscale(*arguments, sent=sent)
    assert result.exit_code == code and not result.stdout_bytes
    assert words in " ".join(result.stderr.replace("\u2502", " ").split())


def test_results_are_beside_their_inputs(place: Path) -> None:
    for name in ("a.jpg", "in/b.png", "in/deep/c.jpg"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(picture("PNG" if name.endswith("png") else "JPEG"))
    made = {"a_x1.5.jpg", "in_x1.5/b_x1.5.png", "in_x1.5/deep/c_x1.5.jpg"}
    before = files(place)
    assert upscale("a.jpg", "in").exit_code == 0
    assert files(place) == before | made
    for inputs in (["a.jpg", "a_x1.5.jpg", "in"], ["*"], ["."], ["in/.."]):  # the first is what a shell makes of *.jpg
        result = upscale(*inputs, "--suffix", "_x1.5")
        assert result.exit_code == 0, result.stderr
        assert files(place) <= before | made | {f"../{place.name}_x1.5/{name}" for name in before}, inputs
    assert upscale("a_x1.5.jpg").exit_code == 0 and (place / "a_x1.5_x1.5.jpg").exists(), "it was named alone"
    old = (place / "a_x1.5.jpg").read_bytes()
    assert "1 outputs have changed settings" in upscale("a.jpg", "--strength", "0.1").stderr
    assert (place / "a_x1.5.jpg").read_bytes() != old


def test_a_line_for_each_file_without_a_terminal(place: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (place / name).write_bytes(picture() if name != "b.jpg" else b"text")
    lines = upscale("*.jpg").stderr.splitlines()
    shown = [line for line in lines if line[1:3] == "/3"]
    assert [line.split(": ")[0][4:] for line in shown] == ["a.jpg", "c.jpg"]
    assert shown[-1].startswith("3/3") and " left" in shown[0] and " left" not in shown[1]


def test_json_is_a_record_for_each_file_and_one_at_the_end(place: Path) -> None:
    (place / "a.jpg").write_bytes(picture())
    (place / "b.jpg").write_bytes(b"text")
    for status in ("done", "skipped"):
        result = upscale("a.jpg", "b.jpg", "missing.png", "--json", "-o", "out")
        assert result.exit_code == 1
        records = [json.loads(line) for line in result.stdout.splitlines()]
        by_name = {record["input"]: record for record in records[:-1]}
        assert by_name["a.jpg"]["status"] == status and by_name["a.jpg"]["output"] == os.path.join("out", "a.jpg")
        assert (by_name["a.jpg"]["seconds"] is None) == (status == "skipped")
        assert by_name["b.jpg"]["status"] == "failed" and by_name["b.jpg"]["output"] is None
        assert "is not an image" in by_name["b.jpg"]["error"] and by_name["missing.png"]["error"]
        counts = {"done": 0, "skipped": 0, "failed": 2, "left": 0} | {status: 1}
        assert records[-1] == {"event": "end", **counts}
