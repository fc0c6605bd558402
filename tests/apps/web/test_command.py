"""``fluxsr web`` before anything is loaded."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from typer.testing import CliRunner

from fluxsr.apps.cli import app
from fluxsr.apps.web.command import checked
from fluxsr.errors import InputError


def test_visitors_see_names_and_no_folders() -> None:
    assert checked(["bundled", "/srv/models/portrait"], None, None) == {
        "bundled": "bundled",
        "portrait": "/srv/models/portrait",
    }


def test_models_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(InputError, match="2 models are called m"):
        checked(["a/m", "b/m"], None, None)


def test_an_adapter_fits_one_model() -> None:
    with pytest.raises(InputError, match="--adapter and --config fit one --model"):
        checked(["a", "b"], "adapter", None)


def test_without_gradio_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "gradio" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    result = CliRunner().invoke(app, ["web"])
    assert result.exit_code == 2 and "pip install 'fluxsr[web]'" in result.output and "Traceback" not in result.output
