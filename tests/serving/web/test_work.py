"""What is made of pictures, without a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxsr.errors import InputError, OutputError
from fluxsr.imaging import io
from fluxsr.options import UpscaleOptions
from fluxsr.serving.web.desk import Desk
from fluxsr.serving.web.work import OFFERED, Studio, line_of


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk", seconds=300)


def pictures(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.linear_gradient("L").resize((16, 24)).convert("RGB").save(folder / name)
    return [folder / name for name in names]


def quiet(part: float, name: str) -> None:
    """Nobody looks."""


def test_before_is_the_bicubic_enlargement_of_the_input(studio: Studio, desk: Desk, tmp_path: Path) -> None:
    (source,) = pictures(tmp_path, "a.png")
    with desk.job("v", "one") as job:
        made, (before, after) = studio.one(source, "tiny", UpscaleOptions(scale=4), job, quiet)
        assert made.path.name == "a_x4.png" and (made.before, made.after) == ((16, 24), (64, 96))
        wanted = Image.open(source).resize((64, 96), Image.Resampling.BICUBIC)
        shown = Image.open(before)
        error = sum(abs(a - b) for a, b in zip(wanted.tobytes(), shown.tobytes(), strict=True)) / len(wanted.tobytes())
        assert error < 1 and Image.open(after).size == shown.size  # a JPEG of quality 95


def test_progress_rises_to_the_end(studio: Studio, desk: Desk, tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    with desk.job("v", "many") as job:
        studio.many(
            pictures(tmp_path, "a.png", "b.png"), "tiny", UpscaleOptions(), job, lambda *what: told.append(what)
        )
    parts = [part for part, _ in told]
    assert parts == sorted(parts) and parts[0] == 0 and parts[-1] == 1
    assert told[0][1] == "a.png (1 of 2)" and told[-1][1] == "b.png (2 of 2)"


def test_names_that_are_alike_are_told_apart(studio: Studio, desk: Desk, tmp_path: Path) -> None:
    sources = pictures(tmp_path, "1/a.png", "2/A.png", "3/a.png")
    with desk.job("v", "many") as job:
        found = studio.many(sources, "tiny", UpscaleOptions(scale=1, format="webp"), job, quiet)
        assert [made.path.name for _, made in found.made] == ["a_x1.webp", "A_x1 (2).webp", "a_x1 (3).webp"]


def test_a_batch_ends_with_what_is_made_when_its_time_is_up(studio: Studio, tmp_path: Path) -> None:
    sources = pictures(tmp_path, "a.png", "b.png")
    with Desk(tmp_path / "desk", seconds=300).job("v", "many") as job:

        def late(part: float, name: str) -> None:
            if part >= 0.5:
                job.seconds = 0

        found = studio.many(sources, "tiny", UpscaleOptions(scale=1), job, late)
    assert [name for name, _ in found.made] == ["a.png"] and found.left == ["b.png"]
    assert "up to 0 seconds" in found.why and found.zip is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": 9}, "scale is 9; choose a number from 1 to 8"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"scale": "4"}, "scale is '4'"),
        ({"strength": -1}, "strength is -1"),
        ({"color_fix": "x"}, "color_fix is 'x'"),
        ({"format": "/../x.png"}, "format is '/../x.png'"),
        ({"strip_gps": "x"}, "strip_gps is 'x'"),
    ],
)
def test_options_are_checked_without_the_page(studio: Studio, values: dict[str, Any], message: str) -> None:
    """A request can be made without the page, whose widgets keep to the ranges."""
    offered = {name: getattr(UpscaleOptions(), name) for name in OFFERED}
    with pytest.raises(InputError, match=message):
        studio.options_of(list((offered | values).values()))


def test_widgets_that_are_left_alone_are_the_defaults(studio: Studio) -> None:
    values = [4, None, "wavelet", "", False, False]
    assert studio.options_of(values) == UpscaleOptions(max_pixels=studio.limits.max_pixels)


def test_a_model_that_is_not_offered_is_refused(studio: Studio, desk: Desk, tmp_path: Path) -> None:
    (source,) = pictures(tmp_path, "a.png")
    with desk.job("v", "one") as job, pytest.raises(InputError, match="there is no model '/etc' here; choose one of"):
        studio.one(source, "/etc", UpscaleOptions(), job, quiet)


def test_too_many_pictures_are_refused(studio: Studio, desk: Desk, tmp_path: Path) -> None:
    sources = pictures(tmp_path, *(f"{k}.png" for k in range(4)))
    with desk.job("v", "many") as job, pytest.raises(InputError, match="4 pictures; this page takes up to 3"):
        studio.many(sources, "tiny", UpscaleOptions(), job, quiet)


def test_too_large_a_picture_is_refused_before_it_is_decoded(studio: Studio, tmp_path: Path) -> None:
    Image.new("L", (300, 300)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="90000 pixels, the limit is 40000") as caught:
        studio.look(tmp_path / "a.png")
    assert line_of(caught.value, tmp_path / "a.png").startswith("a.png is too large") and "--" not in line_of(
        caught.value, tmp_path / "a.png"
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("{0}/a.png is empty (0 bytes)"), "a.png is empty (0 bytes)"),
        (
            OutputError("{0}/results/a_x4.png cannot be written: no space"),
            "a.png: a_x4.png cannot be written: no space",
        ),
        (OutputError("/srv/web/a_x4.png cannot be written: no space"), "a.png: a_x4.png cannot be written: no space"),
        (RuntimeError("{0}/a.png: secret"), "a.png: something went wrong here; the server's log says what"),
        (MemoryError(), "a.png: out of memory; try a smaller scale or picture (MemoryError)"),
    ],
)
def test_lines_name_no_place_on_the_server(tmp_path: Path, error: Any, line: str) -> None:
    error.args = tuple(text.format(tmp_path) for text in error.args)
    assert line_of(error, tmp_path / "a.png") == line


def test_sixteen_bit_comes_out_of_the_page_too(studio: Studio, desk: Desk, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((16, 16)).convert("I;16").save(tmp_path / "deep.png")
    with desk.job("v", "one") as job:
        made, _ = studio.one(tmp_path / "deep.png", "tiny", UpscaleOptions(scale=2), job, quiet)
        assert io.read(made.path).sixteen
