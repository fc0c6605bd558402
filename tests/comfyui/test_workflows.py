"""The example workflows: both formats are one graph, and it fits the nodes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import fluxsr
from fluxsr.cli.comfyui import SOURCE
from fluxsr.options import SIZES

FOLDER = SOURCE / "example_workflows"
API = Path(__file__).parents[2] / "examples" / "comfyui"
CORE = {"LoadImage", "SaveImage", "UNETLoader", "VAELoader", "LoraLoaderModelOnly"}
NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))


def graph(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def api(name: str) -> Any:
    return json.loads((API / f"{name}_api.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_links_agree_on_both_ends(name: str) -> None:
    nodes = {node["id"]: node for node in graph(name)["nodes"]}
    for link, source, slot_out, target, slot_in, kind in graph(name)["links"]:
        given, taken = nodes[source]["outputs"][slot_out], nodes[target]["inputs"][slot_in]
        assert link in given["links"] and taken["link"] == link
        assert given["type"] == taken["type"] == kind


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_are_one_graph(name: str) -> None:
    links = {link: [str(source), slot] for link, source, slot, *_ in graph(name)["links"]}
    drawn = {str(node["id"]): node for node in graph(name)["nodes"] if node["type"] != "MarkdownNote"}
    assert drawn.keys() == api(name).keys()
    for key, node in drawn.items():
        called = api(name)[key]
        assert called["class_type"] == node["type"]
        linked = {put["name"]: links[put["link"]] for put in node["inputs"]}
        assert linked.items() <= called["inputs"].items()
        values = [value for name, value in called["inputs"].items() if name not in linked]
        assert all(value in node["widgets_values"] for value in values)


@pytest.mark.parametrize("name", NAMES)
def test_our_nodes_have_the_inputs_that_the_workflow_sets(name: str, comfyui: Any) -> None:
    from fluxsr.comfyui import nodes

    ours = {node.define_schema().node_id: node.define_schema() for node in
            (nodes.FluxSRConditioning, nodes.FluxSRUpscale, nodes.FluxSRBundled)}  # fmt: skip
    used = {node["class_type"] for node in api(name).values()}
    assert used <= CORE | ours.keys() and used & ours.keys()
    for node in graph(name)["nodes"]:
        if schema := ours.get(node["type"]):
            wanted = [put.id for put in schema.inputs if put.id not in ("mask", *SIZES[1:])]  # these are optional
            sockets = [put["name"] for put in node["inputs"]]
            assert wanted[: len(sockets)] == sockets and len(wanted) == len(sockets) + len(node["widgets_values"])
            assert [put["type"] for put in node["outputs"]] == [put.io_type for put in schema.outputs]
            [called] = [entry for entry in api(name).values() if entry["class_type"] == node["type"]]
            assert sorted(called["inputs"]) == sorted(wanted)


def test_the_registrys_metadata_is_this_packages() -> None:
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # tomli: pytest brings it
    told = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))
    assert told["project"]["version"] == fluxsr.__version__
    assert told["project"]["dependencies"] == (SOURCE / "requirements.txt").read_text().split()
    assert told["tool"]["comfy"].keys() >= {"PublisherId", "DisplayName"}
