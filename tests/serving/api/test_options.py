"""What may be asked for: the command line's own options, checked."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from fluxsr.processing.upscale_file import Options
from fluxsr.serving.api.options import Wanted, checked
from fluxsr.serving.api.problems import Problem


def test_the_defaults_are_those_of_the_command_line() -> None:
    assert checked({}, strict=True).options() == Options()


def test_every_option_arrives() -> None:
    asked: dict[str, Any] = {
        **{"scale": 2, "strength": 0.5, "tile_size": 128, "tile_overlap": 16, "color_fix": "adain", "quality": 80},
        **{"lossless": True, "profile": "srgb", "strip_gps": True},
    }
    found = checked(asked, strict=True).options()
    assert {name: getattr(found, name) for name in asked if name != "strip_gps"} == {
        name: value for name, value in asked.items() if name != "strip_gps"
    }
    assert (
        found.strip == "gps"
        and checked({"strip_metadata": True, "strip_gps": True}, strict=True).options().strip == "all"
    )


def test_a_form_has_words_where_json_has_values() -> None:
    assert checked({"scale": "2", "lossless": "true"}, strict=False) == checked(
        {"scale": 2, "lossless": True}, strict=True
    )
    with pytest.raises(Problem, match="lossless"):
        checked({"lossless": "true"}, strict=True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scale": 9}, "scale: Input should be less than or equal to 8"),
        ({"scale": float("nan")}, "scale: "),
        ({"url": "http://169.254.169.254/"}, "url is no option; there are scale, "),
        ({"color_fix": "lab"}, "color_fix: Input should be 'wavelet', 'adain' or 'none'"),
        ({"tile_size": 64, "tile_overlap": 40}, "tile_overlap is 40, more than half of tile_size 64"),
    ],
)
def test_what_cannot_be_is_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(Problem, match="^" + words) as caught:
        checked(values, strict=True)
    assert caught.value.status == 422 and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("asked", "found", "ending"),
    [
        (None, "JPEG", ".jpg"),
        (None, "GIF", ".png"),
        (None, "HEIF", ".jpg"),
        ("webp", "JPEG", ".webp"),
        (None, "TIFF", ".tif"),
    ],
)
def test_the_format_is_the_inputs_unless_asked_for(asked: str | None, found: str, ending: str) -> None:
    assert Wanted(format=asked).ending(found) == ending  # type: ignore[arg-type]


def test_nothing_of_the_command_line_is_forgotten() -> None:
    """An option that the batch gains is either one of requests, or of the process, or decided on here."""
    process = {"model", "config", "adapter", "device", "dtype", "memory", "compile", "max_pixels"}
    others = {"seed", "strip"}  # draws nothing; is two switches here
    assert {field.name for field in fields(Options)} - process - others == set(Wanted.model_fields) - {
        *("format", "strip_metadata", "strip_gps")
    }
