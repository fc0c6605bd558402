"""Recipes become typed dataclasses; what does not fit is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from fluxsr import recipe
from fluxsr.errors import InputError


@dataclass
class Optim:
    lr: float = 1e-3
    kind: Literal["adamw", "muon"] = "adamw"


@dataclass
class Schema:
    steps: int = 10
    fast: bool = False
    name: str = "x"
    guidance: float | None = 3.5
    widths: list[int] = field(default_factory=lambda: [8])
    shards: list[str] = field(default_factory=list)
    optim: Optim = field(default_factory=Optim)


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_file_then_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "stage: any\nsteps: 3\noptim: {lr: 1e-4}\n")
    loaded = recipe.load(Schema, path, ["optim.kind=muon", "steps=5", "widths=[1, 2]", "name=a=b"])
    assert loaded == Schema(steps=5, name="a=b", widths=[1, 2], optim=Optim(1e-4, "muon"))
    assert recipe.read(path)["stage"] == "any"
    assert recipe.load(Schema, write(tmp_path, "optim:\n"), ["optim.lr=2"]).optim.lr == 2, "an empty group"
    with pytest.raises(InputError, match="optim is 3, which has no keys below it"):
        recipe.load(Schema, write(tmp_path, "optim: 3\n"), ["optim.lr=2"])


def test_defaults_and_values_of_each_type(tmp_path: Path) -> None:
    assert recipe.load(Schema) == recipe.load(Schema, write(tmp_path, "# nothing\n")) == Schema()
    recipe.load(Schema).widths.append(1)
    assert recipe.load(Schema).widths == [8], "not shared"
    loaded = recipe.load(Schema, None, ["optim.lr=1e-4", "guidance=2"])
    assert loaded.optim.lr == 1e-4 and type(loaded.guidance) is float
    loaded = recipe.load(Schema, None, ["guidance=null", "name=", "shards=[]"])
    assert loaded.guidance is None and loaded.name == "" and loaded.shards == []


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown recipe key 'stepz'; did you mean 'steps'"):
        recipe.load(Schema, None, ["stepz=3"])
    with pytest.raises(InputError, match="unknown recipe key 'optim.rl'; did you mean 'lr'"):
        recipe.load(Schema, None, ["optim.rl=3"])
    with pytest.raises(InputError, match="known keys: lr, kind"):
        recipe.load(Schema, None, ["optim.zzzzz=3"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=many", "steps is 'many'; expected int"),
        ("steps=1.5", "steps is 1.5; expected int"),
        ("steps=true", "steps is True; expected int"),
        ("fast=1", "fast is 1; expected bool"),
        ("optim.lr=high", "optim.lr is 'high'; expected float"),
        ("optim.lr=true", "optim.lr is True; expected float"),
        ("optim.lr=null", "optim.lr is None; expected float"),
        ("optim.kind=sgd", "optim.kind is 'sgd'; choose from adamw, muon"),
        ("optim=3", "optim is 3; expected Optim"),
        ("widths=[1, a]", "widths is 'a'; expected int"),
        ("widths=8", "widths is 8; expected list"),
        ("shards=photos", "shards is 'photos'; expected list"),  # not the list of its letters
        ("name=[1]", r"name is \[1\]; expected str"),
        ("steps", "override 'steps' has no '='"),
        ("widths=[1", "cannot read override 'widths=\\[1'"),
        ("steps.more=1", "steps"),  # a number has nothing below it
    ],
)
def test_wrong_value_is_named(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe.load(Schema, None, [override])


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read recipe"):
        recipe.load(Schema, tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="cannot read recipe"):
        recipe.load(Schema, write(tmp_path, "a: [1"))
    with pytest.raises(InputError, match="is a list; it must map keys"):
        recipe.load(Schema, write(tmp_path, "[1, 2]"))
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(InputError, match="cannot read recipe"):
        recipe.load(Schema, latin)


def test_base_holds_where_the_file_is_silent_at_any_depth(tmp_path: Path) -> None:
    base = {"steps": 7, "optim": {"lr": 0.5, "kind": "muon"}}
    path = write(tmp_path, "optim: {lr: 2}\n")
    assert recipe.load(Schema, path, base=base) == Schema(steps=7, optim=Optim(2.0, "muon"))
    assert recipe.load(Schema, write(tmp_path, "optim:\n"), base=base).optim == Optim(0.5, "muon")
    assert base == {"steps": 7, "optim": {"lr": 0.5, "kind": "muon"}}


def test_tuples_of_a_fixed_length_are_counted() -> None:
    @dataclass
    class Ends:
        ends: tuple[float, float] = (0.0, 1.0)
        many: tuple[float, ...] = ()

    assert recipe.load(Ends, None, ["ends=[2, 3]", "many=[1]"]) == Ends((2.0, 3.0), (1.0,))
    with pytest.raises(InputError, match="ends is .*; expected 2 values"):
        recipe.load(Ends, None, ["ends=[2]"])


def test_a_recipe_extends_another(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("stage: any\nsteps: 3\noptim: {lr: 0.5, kind: muon}\n", encoding="utf-8")
    (tmp_path / "second.yaml").write_text("extends: first.yaml\noptim: {lr: 0.25}\n", encoding="utf-8")
    path = write(tmp_path, "extends: second.yaml\nsteps: 4\n")
    assert recipe.load(Schema, path, ["name=b"]) == Schema(steps=4, name="b", optim=Optim(0.25, "muon"))
    assert recipe.read(path)["stage"] == "any"
    with pytest.raises(InputError, match="cannot read recipe .*none.yaml"):
        recipe.load(Schema, write(tmp_path, "extends: none.yaml\n"))


def test_a_saved_recipe_is_the_recipe(tmp_path: Path) -> None:
    config = Schema(steps=5, name="a: b", guidance=None, widths=[1, 2], optim=Optim(1e-5, "muon"))
    recipe.save(config, tmp_path / "recipe.yaml", "any")
    assert recipe.load(Schema, tmp_path / "recipe.yaml") == config
    assert recipe.read(tmp_path / "recipe.yaml")["stage"] == "any"
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_flat_names_descend_by_dots() -> None:
    flat = recipe.flatten(Schema(widths=[1, 2]))
    assert flat["optim.lr"] == 1e-3 and flat["widths"] == [1, 2] and "optim" not in flat
    assert recipe.flatten({"steps": 3, "optim": {"kind": "muon"}}) == {"steps": 3, "optim.kind": "muon"}
