"""What a client may ask for: the declared options, but for those that a server decides."""

from __future__ import annotations

from typing import Any

import pytest

from fluxsr.options import UpscaleOptions
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.options import checked, ending
from fluxsr.serving.api.problems import Problem


def test_a_form_has_text_where_json_has_values() -> None:
    found = checked({"scale": "2", "lossless": "true"}, Limits(), text=True)
    assert found == checked({"scale": 2.0, "lossless": True}, Limits(), text=False)
    assert found == UpscaleOptions(scale=2, lossless=True)
    with pytest.raises(Problem, match="lossless"):
        checked({"lossless": "true"}, Limits(), text=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": 9}, "scale is 9; choose a number from 1 to 8"),
        ({"url": "http://169.254.169.254/"}, "url is not an option; the options are scale, "),
        ({"x" * 9999 + "\n": 1}, "xxxx[x.]+xxx.* is not an option"),
        ({"suffix": "_x4"}, "suffix is not an option"),
        ({"max_pixels": 10**9}, "max_pixels is not an option"),
        ({"tile_size": 64, "tile_overlap": 40}, "tile_overlap is 40, more than half of tile_size 64"),
        ({"tile_size": 2048}, "tile_size is 2048; this server takes up to 1024"),
    ],
)
def test_what_cannot_be_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(Problem, match="^" + message) as caught:
        checked(values, Limits(), text=False)
    assert caught.value.status == 422 and "\n" not in caught.value.message and len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("asked", "found", "wanted"),
    [
        (None, "JPEG", ".jpg"),
        (None, "GIF", ".png"),
        (None, "HEIF", ".jpg"),
        ("webp", "JPEG", ".webp"),
        (None, "TIFF", ".tif"),
    ],
)
def test_the_format_is_the_inputs_unless_asked_for(asked: Any, found: str, wanted: str) -> None:
    assert ending(UpscaleOptions(format=asked), found) == wanted
