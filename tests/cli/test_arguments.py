"""Options that commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from fluxsr.cli.arguments import expand_dataclass_options, planned
from fluxsr.options import SIZES, ModelOptions, UpscaleOptions
from fluxsr.processing.inputs import Found


@dataclass(frozen=True)
class Wings:
    span: Annotated[int, typer.Option(min=1, help="From tip to tip.")] = 2
    folded: Annotated[bool, typer.Option("--folded")] = False


def test_fields_of_a_dataclass_are_options() -> None:
    seen: list[tuple[str, Wings, int]] = []

    @expand_dataclass_options
    def fly(name: str, wings: Wings, height: Annotated[int, typer.Option(help="Above ground.")] = 7) -> None:
        """Take off."""
        seen.append((name, wings, height))

    app = typer.Typer()
    app.command()(fly)
    for line in ("a", "b --span 3 --folded --height 1"):
        assert CliRunner().invoke(app, line.split()).exit_code == 0
    assert seen == [("a", Wings(), 7), ("b", Wings(3, True), 1)]
    assert CliRunner().invoke(app, ["a", "--span", "0"]).exit_code == 2
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert "Take off." in text and text.index("From tip to tip.") < text.index("Above ground.")


def typed(*arguments: str) -> tuple[ModelOptions, UpscaleOptions]:
    """What a command with all options is called with."""
    seen: list[tuple[ModelOptions, UpscaleOptions]] = []

    @expand_dataclass_options
    def command(*, model: ModelOptions, options: UpscaleOptions) -> None:
        seen.append((model, options))

    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    return seen[0]


def test_defaults_are_the_same_from_the_command_line_and_from_python() -> None:
    assert typed() == (ModelOptions(), UpscaleOptions())


def test_every_declared_option_can_be_typed() -> None:
    model = ModelOptions(
        model="m", config="c", adapter="a", vae="v", dtype="bf16", device="cpu", memory="8gb", compile=True
    )
    options = UpscaleOptions(
        **{"scale": 2, "strength": 0.5, "tile_size": 128, "tile_overlap": 16, "color_fix": "none", "format": "webp"},
        **{"suffix": "_x2", "quality": 80, "lossless": True, "profile": "srgb", "strip_metadata": True},
        **{
            "strip_gps": True,
            "max_pixels": 4000,
            "guard": False,
            "provenance": False,
            "wrap": True,
            "first_frame": True,
        },
    )  # type: ignore[arg-type]
    values = {k: v for k, v in (model.model_dump() | options.model_dump()).items() if k not in SIZES[1:]}
    assert not [
        name
        for name, value in values.items()
        if value == (ModelOptions().model_dump() | UpscaleOptions().model_dump())[name]
    ]
    arguments = []
    for name, value in values.items():
        flag = f"--{'no-' * (value is False)}{name.replace('_', '-')}"
        arguments += [flag] if isinstance(value, bool) else [flag, str(value)]
    assert typed(*arguments) == (model, options)
    assert typed("--lossy")[1] == UpscaleOptions(lossless=False)
    for name in SIZES[1:]:
        assert typed(f"--{name}", "16")[1] == UpscaleOptions(**{name: 16})


def test_a_parameter_of_the_command_replaces_a_field_of_its_name() -> None:
    seen: list[tuple[list[str], ModelOptions]] = []

    @expand_dataclass_options
    def command(*, model: Annotated[list[str] | None, typer.Option("--model")] = None, loading: ModelOptions) -> None:
        seen.append((model or [], loading))

    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["--model", "a", "--model", "b", "--dtype", "fp16"]).exit_code == 0
    assert seen == [(["a", "b"], ModelOptions(dtype="fp16"))]


def test_an_input_without_a_place_for_its_output_is_not_the_fault_of_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fluxsr.processing.inputs._below", lambda folder, *_: [Found(Path("/a.png"), Path(), False, folder)]
    )
    with pytest.raises(typer.BadParameter, match="/ has no folder beside it; give an output folder with -o") as found:
        planned(["/"], None, None, "_x4")
    assert found.value.param_hint is None
