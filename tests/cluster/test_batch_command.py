"""``fluxsr batch`` with the bundled model on a local Ray cluster, and what it says of arguments that cannot be."""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from fluxsr.cli.main import app
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing import inputs, upscale_file


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["batch", *map(str, arguments)])


def rows(out: Path) -> list[dict[str, Any]]:
    return parquet.read_table(out / "report.parquet").to_pylist()


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def connected(size: Any) -> None:
        raise AssertionError("nothing is to do")

    from fluxsr.cluster import run as module

    monkeypatch.setattr(module, "connected", connected)


@pytest.mark.slow
def test_shards_on_two_workers_and_again(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(shard, "a") as tar:
        broken = tmp_path / "3.jpg"
        broken.write_bytes(b"\xff\xd8 no more")
        tar.add(broken, "a/3.jpg")
    out = tmp_path / "out"
    result = run(shard.parent / "*.tar", "-o", out, "--workers", "2")
    assert result.exit_code == 1, result.output
    assert f"error: {shard}::a/3.jpg is" in result.stderr and "2 upscaled, 1 failed; 3 rows in" in result.stderr
    assert [(row["output"], row["status"]) for row in rows(out)] == [
        ("000/a/1.jpg", "done"),
        ("000/a/2.png", "done"),
        ("000/a/3.jpg", "failed"),
    ]
    with tarfile.open(shard) as before, tarfile.open(out / "000.tar") as after:
        assert after.getnames() == ["a/1.jpg", "a/1.json", "a/2.png", "a/2.mask.png", "a/2.txt"]
        before.extractall(tmp_path / "loose", filter="data")
        after.extractall(tmp_path / "packed", filter="data")
    upscale_file.run(
        inputs.plan([str(tmp_path / "loose" / "a" / "1.jpg")], tmp_path, as_file=False),
        ModelOptions(),
        UpscaleOptions(),
    )
    assert (tmp_path / "1.jpg").read_bytes() == (tmp_path / "packed" / "a" / "1.jpg").read_bytes()

    before_again = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr("fluxsr.cluster.run.connected", None)  # no cluster is started for nothing
    again = run(shard.parent / "*.tar", "-o", out, "--workers", "2")
    assert again.exit_code == 1 and "0 upscaled, 2 finished before" in again.stderr, again.output
    assert before_again == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
@pytest.mark.slow
def test_a_name_that_is_not_utf_8_has_its_row_and_its_picture(tmp_path: Path, image: Callable[..., bytes]) -> None:
    names = [b"caf\xe9.png", b"\xff/deep.png", b"two\nlines.png", b"broken\xe9.png", b"z.png"]
    for name in names:
        path = tmp_path / "in" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no picture" if b"broken" in name else image())
    out = tmp_path / "out"
    result = run(tmp_path / "in", "-o", out, "--workers", "1", "--scale", "1")
    assert result.exit_code == 1, result.output
    assert "4 upscaled, 1 failed; 5 rows" in result.stderr and "Traceback" not in result.output
    for name in names:
        assert (out / os.fsdecode(name)).exists() == (b"broken" not in name)
    found = {row["output"]: row["status"] for row in rows(out)}
    assert found == {
        "caf\\udce9.png": "done",
        "\\udcff/deep.png": "done",
        "two\nlines.png": "done",
        "broken\\udce9.png": "failed",
        "z.png": "done",
    }
    again = run(tmp_path / "in", "-o", out, "--workers", "1", "--scale", "1")
    assert "0 upscaled, 4 finished before" in again.stderr and "1 failed before" in again.stderr


@pytest.mark.usefixtures("no_ray")
def test_outputs_of_others_are_left_alone(tmp_path: Path, image: Callable[..., bytes]) -> None:
    for name in ("in/a.png", "out/a.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(image())
    for _ in range(2):
        result = run(tmp_path / "in", "-o", tmp_path / "out")
        assert result.exit_code == 0 and "1 finished before" in result.stderr
        assert [row["status"] for row in rows(tmp_path / "out")] == ["kept"]
    assert (tmp_path / "out" / "a.png").read_bytes() == image()


@pytest.mark.usefixtures("no_ray")
def test_a_shard_of_others_is_left_alone(shard: Path, tmp_path: Path) -> None:
    (tmp_path / "000.tar").write_bytes(b"theirs")
    result = run(shard, "-o", tmp_path)
    assert result.exit_code == 2 and "exists but is not in the report" in result.stderr
    assert (tmp_path / "000.tar").read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none", "-o", "out"], "none does not exist"),
        (["in", "-o", "nonsense://x"], "nonsense://x: Protocol not known"),
        (["in", "-o", "in"], "in is both input and output"),
        (["in", "-o", "out", "--column", "x"], "in is not a manifest"),
        (["in", "-o", "out", "--address", "127.0.0.1:1"], "no Ray cluster at '127.0.0.1:1'"),
    ],
)
def test_arguments_that_cannot_be(
    tmp_path: Path, image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(image())
    result = run(*arguments)
    assert result.exit_code == 2 and f"error: {said}" in result.stderr, result.output


@pytest.mark.parametrize("package", ["ray", "pyarrow", "fsspec"])
def test_a_missing_extra_is_one_line(tmp_path: Path, uninstall: Callable[..., None], package: str) -> None:
    uninstall(package)
    result = run(tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert f'fluxsr batch needs {package}; pip install "fluxsr[ray]"' in result.stderr


def test_help_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; from typer.testing import CliRunner; from fluxsr.cli.main import app;"
        "assert CliRunner().invoke(app, ['batch', '--help']).exit_code == 0;"
        "print({'ray', 'torch', 'pyarrow', 'fsspec'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
