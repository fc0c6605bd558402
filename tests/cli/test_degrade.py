"""``fluxsr degrade``: the same bytes in any company, and bad files are one line each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from fluxsr.cli.main import app
from fluxsr.degradation import PRESETS, degrade
from fluxsr.errors import InputError
from fluxsr.imaging import io
from fluxsr.processing.degrade_file import degraded, keyed_seed, read_hr
from fluxsr.processing.inputs import Job
from fluxsr.processing.resume import NAME


def photograph(path: Path, width: int = 40, height: int = 36, seed: int = 0) -> Path:
    pixels = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 255).byte().numpy()).save(path)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["degrade", *(str(argument) for argument in arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a.png", "b.png", "sub/c.png")):
        photograph(tmp_path / "in" / name, seed=seed)
    return tmp_path / "in"


def test_a_folder_becomes_a_folder_of_small_images(folder: Path, tmp_path: Path) -> None:
    result = run(folder, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "3 degraded" in result.stderr
    for name in ("a.png", "b.png", "sub/c.png"):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size == (10, 9)


@pytest.mark.parametrize("preset", ["realesrgan", "stablesr", "mild"])
def test_bytes_depend_on_seed_and_name_and_not_on_order_or_number(folder: Path, tmp_path: Path, preset: str) -> None:
    run(folder, "-o", tmp_path / "all", "--preset", preset, "--seed", "3")
    run(folder / "b.png", folder / "a.png", "-o", tmp_path / "turned", "--preset", preset, "--seed", "3")
    run(folder / "b.png", "-o", tmp_path / "alone", "--preset", preset, "--seed", "3")
    run(folder / "b.png", "-o", tmp_path / "other", "--preset", preset, "--seed", "4")
    whole, turned, alone, other = (
        (tmp_path / name / "b.png").read_bytes() for name in ("all", "turned", "alone", "other")
    )
    assert whole == turned == alone != other


def test_the_name_decides_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "b.png"
    moved.parent.mkdir()
    shutil.copy(folder / "b.png", moved)
    renamed = shutil.copy(folder / "b.png", tmp_path / "elsewhere" / "d.png")
    for source, out in ((folder / "b.png", "one"), (moved, "two"), (renamed, "three")):
        assert run(source, "-o", tmp_path / out).exit_code == 0
    first = (tmp_path / "one" / "b.png").read_bytes()
    assert first == (tmp_path / "two" / "b.png").read_bytes() != (tmp_path / "three" / "d.png").read_bytes()


def test_is_degrade_with_the_keyed_generator(folder: Path, tmp_path: Path) -> None:
    job = Job(folder / "a.png", tmp_path / "a.png")
    degraded(job, read_hr(job), PRESETS["mild"], 5)()
    generator = torch.Generator().manual_seed(keyed_seed(5, "a.png"))
    expected = degrade(io.to_tensor(Image.open(folder / "a.png")), PRESETS["mild"], generator)
    torch.testing.assert_close(io.to_tensor(Image.open(tmp_path / "a.png")), expected)


def test_seeds_of_files_are_pinned() -> None:
    """They must not change between versions or machines: data sets are made with them."""
    assert keyed_seed(0, "a.png") == 7141918282500671111
    assert len({keyed_seed(seed, name) for seed in (0, 1, 10) for name in ("a.png", "b.png", "0/a.png")}) == 9


def test_a_name_that_is_not_utf_8_has_a_seed() -> None:
    assert len({keyed_seed(0, name) for name in ("caf\udce9.png", "caf\udcff.png", "caf\u00e9.png")}) == 3


def test_finished_outputs_are_skipped(folder: Path, tmp_path: Path) -> None:
    run(folder / "a.png", "-o", tmp_path / "out")
    before = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    again = run(folder, "-o", tmp_path / "out")
    assert again.exit_code == 0 and "2 degraded, 1 finished before" in again.stderr
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == before
    assert "3 degraded" in run(folder, "-o", tmp_path / "out", "--overwrite").stderr


def test_bad_files_are_one_line_each_and_the_rest_is_done(folder: Path, tmp_path: Path) -> None:
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not an image")
    photograph(folder / "thin.png", 40, 3)
    result = run(folder, tmp_path / "missing.png", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 4 and "3 degraded, 4 failed" in result.stderr
    for name, words in {
        "empty.png": "is empty",
        "text.png": "is not an image",
        "thin.png": "40x3 pixels are too few to be reduced by 4",
        "missing.png": "no such file",
    }.items():
        assert len([line for line in lines if name in line and words in line]) == 1, name
    written = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {"a.png", "b.png", "c.png", NAME}, "no half file is left"


def test_scale_format_and_sides_that_do_not_divide(folder: Path, tmp_path: Path) -> None:
    source = photograph(tmp_path / "odd.png", 41, 37)
    result = run(source, "-o", tmp_path / "out", "--scale", "3", "--format", "webp", "--suffix", "_lr")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out" / "odd_lr.webp") as image:
        assert image.size == (13, 12) and image.format == "WEBP"


def test_your_own_settings(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("preset: bicubic\nscale: 2\n")
    assert run(folder / "a.png", "-o", tmp_path / "a.png", "--preset", own).exit_code == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (20, 18)


@pytest.mark.parametrize(
    ("text", "message"),
    [("scal: 2", "did you mean 'scale'"), ("preset: wild", "choose from realesrgan")],
)
def test_wrong_settings_exit_2_before_anything_is_written(
    folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text)
    result = run(folder, "-o", tmp_path / "out", "--preset", own)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_an_unknown_preset_exits_2(folder: Path, tmp_path: Path) -> None:
    result = run(folder, "-o", tmp_path / "out", "--preset", "wild")
    assert result.exit_code == 2 and "'wild' is not known" in result.stderr


def test_too_small_an_image_is_an_input_error(tmp_path: Path) -> None:
    source = photograph(tmp_path / "a.png", 3, 40)
    with pytest.raises(InputError, match="3x40"):
        job = Job(source, tmp_path / "b.png")
        degraded(job, read_hr(job), PRESETS["mild"], 0)
