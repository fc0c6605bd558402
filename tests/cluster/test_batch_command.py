"""``fluxsr batch`` with the bundled model on a local Ray cluster, and its error messages."""

from __future__ import annotations

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


def statuses(out: Path) -> dict[str, str]:
    return {row["output"]: row["status"] for row in parquet.read_table(out / "report.parquet").to_pylist()}


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
    assert statuses(out) == {"000/a/1.jpg": "done", "000/a/2.png": "done", "000/a/3.jpg": "failed"}
    with tarfile.open(shard) as before, tarfile.open(out / "000.tar") as after:
        assert after.getnames() == ["a/1.jpg", "a/1.json", "a/2.png", "a/2.mask.png", "a/2.txt"]
        before.extractall(tmp_path / "loose", filter="data")
        after.extractall(tmp_path / "packed", filter="data")
    plan = inputs.plan([str(tmp_path / "loose" / "a" / "1.jpg")], tmp_path, as_file=False)
    upscale_file.run(plan, ModelOptions(), UpscaleOptions())
    assert (tmp_path / "1.jpg").read_bytes() == (tmp_path / "packed" / "a" / "1.jpg").read_bytes()

    before_again = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr("fluxsr.cluster.run.connected", None)  # no cluster is started if nothing is to do
    again = run(shard.parent / "*.tar", "-o", out, "--workers", "2")
    assert again.exit_code == 1 and "0 upscaled, 2 finished before" in again.stderr, again.output
    assert before_again == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_files_of_others_are_kept(
    shard: Path, tmp_path: Path, image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluxsr.cluster.run.connected", None)
    for name in ("photos/a.png", "out/a.png", "out/000.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(image())
    for _ in range(2):
        result = run(tmp_path / "photos", "-o", tmp_path / "out")
        assert result.exit_code == 0 and "1 finished before" in result.stderr
        assert statuses(tmp_path / "out") == {"a.png": "kept"}
    result = run(shard, "-o", tmp_path / "out")
    assert result.exit_code == 2 and "exists but is not in the report" in result.stderr
    assert all((tmp_path / "out" / name).read_bytes() == image() for name in ("a.png", "000.tar"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "-o", "out"], "none does not exist"),
        (["in", "-o", "nonsense://x"], "nonsense://x: Protocol not known"),
        (["in", "-o", "in"], "in is both input and output"),
        (["in", "-o", "out", "--column", "x"], "in is not a manifest"),
        (["in", "-o", "out", "--address", "127.0.0.1:1"], "no Ray cluster at '127.0.0.1:1'"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(image())
    result = run(*arguments)
    assert result.exit_code == 2 and f"error: {message}" in result.stderr, result.output


def test_a_missing_extra_is_one_line(tmp_path: Path, uninstall: Callable[..., Any]) -> None:
    uninstall("ray", "pyarrow", "fsspec")
    result = run(tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert 'fluxsr batch needs ray, pyarrow, fsspec; pip install "fluxsr[ray]"' in result.stderr
