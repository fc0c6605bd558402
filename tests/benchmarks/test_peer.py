"""The comparison with peers prints the ratio of the rounds, and peers write their images."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import peer  # noqa: E402


def test_the_table_says_how_many_times_fewer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def taking(seconds: float) -> peer.Upscale:
        def upscale(image: Image.Image) -> Image.Image:
            clock[0] += seconds
            return image

        return upscale

    monkeypatch.setattr(peer, "peer", lambda path, threads: taking(6.0 if path.stem == "large" else 1.0))
    monkeypatch.setattr(peer, "ours", lambda model, dtype: taking(2.0))
    assert peer.main(["large.param", "small.param", "--dtypes", "fp32", "--sizes", "125", "--rounds", "2"]) == 0
    printed = capsys.readouterr().out
    assert "times fewer than large" in printed
    assert "| 500x500 | small | 1.00 | 4.00 | 6.0 |" in printed
    assert "| 500x500 | ours, fp32 | 2.00 | 8.00 | 3.0 |" in printed


@pytest.fixture
def nearest(tmp_path: Path) -> Path:
    """An ncnn model without weights that repeats every pixel 4 times; its blobs have names of their own."""
    layers = ["Input a 0 1 pixels", "Interp b 1 1 pixels large 0=1 1=4.0 2=4.0"]
    (tmp_path / "nearest.param").write_text("\n".join(["7767517", "2 2", *layers]) + "\n", encoding="utf-8")
    (tmp_path / "nearest.bin").write_bytes(b"")
    return tmp_path / "nearest.param"


@pytest.mark.slow  # needs ncnn, which brings OpenCV
def test_any_ncnn_model_writes_its_images(nearest: Path, tmp_path: Path) -> None:
    (tmp_path / "lr").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "lr" / "a.png")
    assert peer.main([str(nearest), "--lr", str(tmp_path / "lr"), "--out", str(tmp_path / "out")]) == 0
    written = np.asarray(Image.open(tmp_path / "out" / "nearest" / "a.png"))
    assert np.abs(written.astype(int) - pixels.repeat(4, 0).repeat(4, 1)).max() <= 1


@pytest.mark.slow  # needs ncnn, which brings OpenCV
def test_what_is_missing_is_one_line(nearest: Path, tmp_path: Path) -> None:
    nearest.with_suffix(".bin").unlink()
    with pytest.raises(SystemExit, match=r"error: no file .*nearest.bin; see --help"):
        peer.peer(nearest, 1)
    nearest.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(SystemExit, match="error: no such folder"):
        peer.main([str(nearest), "--lr", str(tmp_path / "absent"), "--out", str(tmp_path / "out")])
