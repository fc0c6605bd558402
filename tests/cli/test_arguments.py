"""Options that commands share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from fluxsr.cli.arguments import ColorFix, Memory, Upscaling, spread
from fluxsr.processing.upscale_file import Options


@dataclass(frozen=True)
class Wings:
    span: Annotated[int, typer.Option(min=1, help="From tip to tip.")] = 2
    folded: Annotated[bool, typer.Option("--folded")] = False


def test_fields_of_a_dataclass_are_options() -> None:
    seen: list[tuple[str, Wings, int]] = []

    @spread
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


def test_defaults_are_the_same_from_the_command_line_and_from_python() -> None:
    assert Upscaling().options() == Options()


def test_all_that_shapes_a_result_can_be_typed() -> None:
    named = {field.name for field in fields(Options)} - {field.name for field in fields(Upscaling)}
    assert named == {"strip"}  # of two flags


def test_words_are_plain_text() -> None:
    """A ledger and a worker's process hold them: no enums of the command line."""
    options = Upscaling(color_fix=ColorFix.none, memory=Memory.gb8, strip_gps=True).options()
    assert (options.color_fix, options.memory, options.strip) == ("none", "8gb", "gps")
    assert type(options.color_fix) is type(options.memory) is str
    assert Upscaling(strip_gps=True, strip_metadata=True).options().strip == "all"


def test_tiles_that_are_all_overlap_are_refused() -> None:
    with pytest.raises(typer.BadParameter, match="33 is more than half of --tile-size 64"):
        Upscaling(tile_size=64, tile_overlap=33)


def test_strength_has_the_same_bounds_everywhere() -> None:
    """Command line, HTTP and Python: a value that one takes is no error to another."""
    from fluxsr.flow import MAX_STRENGTH
    from fluxsr.serving.api.options import Wanted

    (option,) = get_type_hints(Upscaling, include_extras=True)["strength"].__metadata__
    assert (option.min, option.max) == (0, MAX_STRENGTH)
    assert Wanted(strength=MAX_STRENGTH).strength == MAX_STRENGTH
    with pytest.raises(ValueError, match="less than or equal to 2"):
        Wanted(strength=MAX_STRENGTH + 0.01)
