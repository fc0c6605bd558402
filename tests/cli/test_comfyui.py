from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fluxsr.cli.comfyui import SOURCE, install
from fluxsr.cli.main import app
from fluxsr.errors import InputError, OutputError


@pytest.fixture
def comfyui_folder(tmp_path: Path) -> Path:
    (tmp_path / "custom_nodes").mkdir()
    return tmp_path


def test_it_copies_what_comfyui_looks_for_and_renews_it(comfyui_folder: Path) -> None:
    target = install(comfyui_folder)
    assert target == comfyui_folder / "custom_nodes" / "fluxsr"
    workflows = sorted((target / "example_workflows").glob("*.json"))
    assert len(workflows) == 2 and all(json.loads(file.read_text())["nodes"] for file in workflows)
    (target / "stale.txt").write_text("of an older version")
    assert install(comfyui_folder) == target
    assert {file.name for file in target.iterdir()} == {f.name for f in SOURCE.iterdir()} - {"__pycache__"}
    assert [entry.name for entry in target.parent.iterdir()] == ["fluxsr"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_to_a_checkout_is_replaced_and_what_it_names_is_not(comfyui_folder: Path) -> None:
    (comfyui_folder / "custom_nodes" / "fluxsr").symlink_to(SOURCE, target_is_directory=True)
    assert not install(comfyui_folder).is_symlink() and (SOURCE / "__init__.py").is_file()


def test_anothers_folder_is_left_alone(comfyui_folder: Path) -> None:
    other = comfyui_folder / "custom_nodes" / "fluxsr"
    other.mkdir()
    (other / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}")
    with pytest.raises(OutputError, match="is not from fluxsr; move it away"):
        install(comfyui_folder)
    assert (other / "__init__.py").read_text() == "NODE_CLASS_MAPPINGS = {}"


def test_a_folder_without_comfyui_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no folder custom_nodes"):
        install(tmp_path)


def test_the_command_says_where(comfyui_folder: Path) -> None:
    result = CliRunner().invoke(app, ["comfyui", str(comfyui_folder)])
    assert result.exit_code == 0 and str(comfyui_folder / "custom_nodes" / "fluxsr") in result.output
