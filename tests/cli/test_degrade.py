"""``fluxsr degrade``: the same bytes whatever other files there are, and bad files are one line each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from fluxsr.cli.main import app
from fluxsr.degradation import PRESETS, degrade
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


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a.png", "b.png", "sub/c.png")):
        photograph(tmp_path / "in" / name, seed=seed)
    return tmp_path / "in"


def test_bad_files_are_one_line_each_and_the_rest_is_done_once(folder: Path, tmp_path: Path) -> None:
    (folder / "text.png").write_text("not an image")
    photograph(folder / "thin.png", 40, 3)
    result = run(folder, tmp_path / "missing.png", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 3 and "3 degraded, 3 failed" in result.stderr
    bad = {"text": "is not an image", "thin": "40x3 pixels are too few to be reduced by 4", "missing": "no such file"}
    for name, words in bad.items():
        assert len([line for line in lines if name in line and words in line]) == 1, name
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert written == {"a.png", "b.png", "sub/c.png", NAME}, "no half file is left"
    assert size(tmp_path / "out" / "sub" / "c.png") == (10, 9)
    assert "0 degraded, 3 finished before" in run(folder, "-o", tmp_path / "out").stderr
    assert "3 degraded" in run(folder, "-o", tmp_path / "out", "--overwrite").stderr
    assert "3 degraded" in run(folder, "-o", tmp_path / "out", "--seed", "1").stderr, "another seed"


@pytest.mark.parametrize("preset", ["realesrgan", "stablesr", "mild"])
def test_bytes_depend_only_on_image_name_and_seed(folder: Path, tmp_path: Path, preset: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.copy(folder / "b.png", tmp_path / "elsewhere" / "b.png"))
    renamed = Path(shutil.copy(folder / "b.png", tmp_path / "elsewhere" / "d.png"))
    runs = {"all": [folder], "turned": [moved, folder / "a.png"], "renamed": [renamed]}
    for name, sources in runs.items():
        assert run(*sources, "-o", tmp_path / name, "--preset", preset, "--seed", "3").exit_code == 0
    run(folder / "b.png", "-o", tmp_path / "seed", "--preset", preset, "--seed", "4")
    expected = (tmp_path / "all" / "b.png").read_bytes()
    assert (tmp_path / "turned" / "b.png").read_bytes() == expected
    assert expected not in ((tmp_path / name).read_bytes() for name in ("renamed/d.png", "seed/b.png"))


def test_it_is_degrade_with_the_keyed_generator(folder: Path, tmp_path: Path) -> None:
    job = Job(folder / "a.png", tmp_path / "a.png")
    degraded(job, read_hr(job), PRESETS["mild"], 5)()
    generator = torch.Generator().manual_seed(keyed_seed(5, "a.png"))
    expected = degrade(io.to_tensor(Image.open(folder / "a.png")), PRESETS["mild"], generator)
    torch.testing.assert_close(io.to_tensor(Image.open(tmp_path / "a.png")), expected)


def test_seeds_of_files_are_pinned() -> None:
    """They must not change between versions or machines: data sets are made with them."""
    assert keyed_seed(0, "a.png") == 7141918282500671111
    assert len({keyed_seed(seed, name) for seed in (0, 1, 10) for name in ("a.png", "caf\udce9.png", "0/a.png")}) == 9


def test_own_settings_and_sides_that_do_not_divide(tmp_path: Path) -> None:
    source, own = photograph(tmp_path / "odd.png", 41, 37), tmp_path / "own.yaml"
    own.write_text("preset: bicubic\nscale: 2\n")
    assert run(source, "-o", tmp_path / "a.png", "--preset", own).exit_code == 0
    assert size(tmp_path / "a.png") == (20, 18)
    options = ("--preset", own, "--scale", "3", "--format", "webp", "--suffix", "_lr")
    assert run(source, "-o", tmp_path, *options).exit_code == 0
    assert size(tmp_path / "odd_lr.webp") == (13, 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [("scal: 2", "did you mean 'scale'"), ("preset: wild", "choose from realesrgan"), (None, "'wild' is not known")],
)
def test_wrong_settings_exit_2_before_anything_is_written(
    folder: Path, tmp_path: Path, text: str | None, message: str
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text or "")
    result = run(folder, "-o", tmp_path / "out", "--preset", own if text else "wild")
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "out").exists()
