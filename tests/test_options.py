"""Every option is declared once: checks, error lines, and agreement of all front ends."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from fluxsr import options
from fluxsr.errors import InputError
from fluxsr.imaging.formats import WRITTEN
from fluxsr.options import ModelOptions, UpscaleOptions, declared

SOURCE = Path(options.__file__).parent
NUMBERS = (*options.SIZES, "strength", "tile_size", "tile_overlap")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"scale": 9}, "scale is 9; choose a number from 1 to 8"),
        ({"scale": True}, "scale is True; choose a number from 1 to 8"),
        (
            {"scale": 2, "width": 400},
            "width and scale are given; choose one of scale, width, height, longest, megapixels",
        ),
        ({"width": 400.5}, "width is 400.5; choose a whole number from 16 to 800000"),
        ({"strength": float("nan")}, "strength is nan; choose a number from 0 to 2"),
        ({"tile_size": 64.5}, "tile_size is 64.5; choose a whole number from 64 to 4096"),
        ({"max_pixels": 0}, "max_pixels is 0; choose a whole number of 1 or more"),
        (
            {"tile_size": 64, "tile_overlap": 33},
            "tile_overlap is 33, more than half of tile_size 64; choose 32 or less",
        ),
        ({"color_fix": "lab"}, "color_fix is 'lab'; it should be 'wavelet', 'adain' or 'none'"),
        ({"lossless": "yes"}, "lossless is 'yes'; it should be a valid boolean"),
        ({"suffix": "../x"}, "suffix is '../x'; it must not contain a folder"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line(values: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as caught:
        UpscaleOptions(**values)
    assert str(caught.value) == line


@pytest.mark.parametrize("name", ["self", "url", "x" * 5000 + "\n"])
def test_an_unknown_name_is_one_line_that_lists_the_options(name: str) -> None:
    with pytest.raises(InputError, match=r"^[a-z.\\]+ is not an option; the options are scale, width,") as caught:
        UpscaleOptions(**{name: 1})
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_numbers_of_numpy_and_json_are_taken() -> None:
    found = UpscaleOptions(scale=np.float32(2.5), tile_size=np.int64(128), quality=95.0)  # type: ignore[arg-type]
    assert found == UpscaleOptions(scale=2.5, tile_size=128, quality=95)
    assert [type(value) for value in (found.scale, found.tile_size, found.quality)] == [float, int, int]


def test_a_form_is_all_text() -> None:
    found = UpscaleOptions.from_text({"scale": "2", "quality": "95.0", "lossless": "true", "format": "png"})
    assert found == UpscaleOptions(scale=2, quality=95, lossless=True, format="png")
    with pytest.raises(InputError, match="scale is 'x'; choose a number from 1 to 8"):
        UpscaleOptions.from_text({"scale": "x"})


@pytest.mark.parametrize(
    ("option", "size", "line"),
    [
        ({"scale": None}, (680, 1240), ""),
        ({"scale": 1.5}, (255, 465), ""),
        ({"width": 1001}, (549, 1001), ""),
        ({"height": 1001}, (1001, 1825), ""),
        ({"longest": 2480}, (1360, 2480), ""),
        ({"longest": 310}, (170, 310), ""),
        ({"megapixels": 0.5}, (524, 955), ""),
        (
            {"width": 309},
            None,
            "width is 309, which would enlarge 310x170 pixels 0.9968 times; choose 310 to 2480, which is 1 to 8 times",
        ),
        ({"height": 1700}, None, "height is 1700, .* 310x170 pixels 10 times; choose 170 to 1360"),
        ({"longest": 3840}, None, "longest is 3840, .* 310x170 pixels 12.39 times; choose 310 to 2480"),
        ({"megapixels": 12}, None, "megapixels is 12, .* 310x170 pixels 15.09 times; choose 0.053 to 3.372"),
    ],
)
def test_the_size_is_exact_and_between_1_and_8_times_the_image(
    option: dict[str, Any], size: tuple[int, int] | None, line: str
) -> None:
    options = UpscaleOptions(**option)
    if size:
        assert options.size_of(170, 310) == size
    else:
        with pytest.raises(InputError, match=f"^{line}"):
            options.size_of(170, 310)


def test_options_travel_to_other_processes() -> None:
    for one in (UpscaleOptions(scale=2, strip_gps=True), ModelOptions(model="m", dtype="bf16")):
        assert pickle.loads(pickle.dumps(one)) == one


def test_all_but_names_and_limits_change_the_result() -> None:
    assert set(declared(UpscaleOptions)) - set(UpscaleOptions().result_settings()) == {"format", "suffix", "max_pixels"}


def test_every_option_has_a_help_text_of_whole_sentences() -> None:
    for option in [*declared(UpscaleOptions).values(), *declared(ModelOptions).values()]:
        assert option.help[0].isupper() and option.help.endswith("."), option.name


def test_formats_are_those_that_are_written() -> None:
    assert [f".{choice}" for choice in declared(UpscaleOptions)["format"].choices] == [
        form.endings[0] for form in WRITTEN
    ]


class TestFrontEndsAgree:
    """Each front end has the declared range and help of an option, and Python has its default."""

    def test_command_line(self) -> None:
        from fluxsr.cli.main import app

        commands = {one.callback.__name__: one.callback for one in app.registered_commands if one.callback}
        for command in (commands["upscale"], commands["batch"]):
            parameters = inspect.signature(command).parameters
            for name, option in declared(UpscaleOptions).items():
                kind, typed = get_args(parameters[name].annotation)
                assert (typed.min, typed.max, typed.help) == (option.minimum, option.maximum, option.help)
                assert parameters[name].default == option.default
                assert not option.choices or option.choices in (get_args(kind), get_args(get_args(kind)[0]))

    def test_http(self) -> None:
        from fluxsr.serving.http_schema import BODY

        forms, json = (BODY["content"][kind]["schema"] for kind in ("multipart/form-data", "application/json"))
        for name in NUMBERS:
            option = declared(UpscaleOptions)[name]
            for field in (forms["properties"][name], json["properties"][name]):
                number = field.get("anyOf", [field])[0]
                assert (number["minimum"], number["maximum"]) == (option.minimum, option.maximum)
                assert field["description"] == option.help
        local = {name for name, option in declared(UpscaleOptions).items() if option.local}
        assert (
            set(json["properties"]) == {"image", "mask", *declared(UpscaleOptions)} - local == set(forms["properties"])
        )

    def test_web_page(self) -> None:
        pytest.importorskip("gradio")
        from fluxsr.serving.web_page import widget

        for name in ("scale", "strength"):  # the page leaves tiles to the model
            option = declared(UpscaleOptions)[name]
            slider = widget(option)
            assert (slider.minimum, slider.maximum, slider.info) == (option.minimum, option.maximum, option.help)

    def test_python(self) -> None:
        from fluxsr.pipeline import FluxSRPipeline

        parameters = inspect.signature(FluxSRPipeline.__call__).parameters
        hints = get_type_hints(FluxSRPipeline.__call__)
        for name in (*NUMBERS, "color_fix"):
            option = declared(UpscaleOptions)[name]
            assert parameters[name].default == option.default
            assert not option.choices or get_args(hints[name]) == option.choices

    def test_no_other_file_declares_a_range_of_them(self) -> None:
        """Nobody writes ``scale: ... = Field(ge=1`` or ``typer.Option(min=64`` for one of these names again."""
        pattern = re.compile(rf"^\s*({'|'.join(NUMBERS)}):.*(\bge=|\ble=|\bmin=|\bmax=)", re.MULTILINE)
        found = {path.name for path in SOURCE.rglob("*.py") if pattern.search(path.read_text(encoding="utf-8"))}
        assert found <= {"options.py", "degrade.py"}  # degrade's scale is how much HR is reduced
