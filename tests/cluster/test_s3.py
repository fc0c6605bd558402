"""An archive in an S3 bucket: s3fs against moto's server, where both are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from fluxsr.cli.main import app
from fluxsr.cluster.storage import Storage

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")  # Ray's workers inherit them
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    place = Storage("s3://archive")
    place.fs.mkdir("archive", create_parents=True)
    yield place
    place.fs.clear_instance_cache()
    running.stop()


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["batch", *arguments])


def test_a_bucket_to_a_bucket_and_again(bucket: Storage, image: Callable[..., bytes]) -> None:
    for name in ("in/a.png", "in/b/c.png", "in/d.jpg"):
        bucket.write(name, image("JPEG" if name.endswith("jpg") else "PNG"))
    bucket.write("in/broken.png", b"nonsense")
    result = run("s3://archive/in", "-o", "s3://archive/out", "--workers", "2")
    assert result.exit_code == 1, result.output
    assert "error: s3://archive/in/broken.png is not an image" in result.stderr and "3 upscaled" in result.stderr
    assert set(bucket.find("out")) == {f"out/{name}" for name in ("a.png", "b/c.png", "d.jpg", "report.parquet")}
    with bucket.fs.open("archive/out/report.parquet") as file:
        assert parquet.read_table(file).num_rows == 4
    again = run("s3://archive/in", "-o", "s3://archive/out", "--workers", "2")
    assert "0 upscaled, 3 finished before" in again.stderr, again.output
    bucket.write("in/d.jpg", image("JPEG", seed=5))
    changed = run("s3://archive/in", "-o", "s3://archive/out", "--workers", "1", "--retry-failed")
    assert "1 upscaled, 2 finished before (--overwrite redoes them), 1 failed;" in changed.stderr, changed.output
