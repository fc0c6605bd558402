"""``fluxsr web`` before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from typer.testing import CliRunner

from fluxsr.cli.main import app
from fluxsr.cli.web import checked
from fluxsr.errors import InputError
from fluxsr.options import ModelOptions
from fluxsr.serving.limits import WebLimits


def test_visitors_see_names_of_models_and_no_folders() -> None:
    assert checked(["bundled", "/srv/m"], ModelOptions()) == {"bundled": "bundled", "m": "/srv/m"}
    with pytest.raises(InputError, match="2 models are called m"):
        checked(["a/m", "b/m"], ModelOptions())
    with pytest.raises(InputError, match="--adapter, --config and --vae fit one --model"):
        checked(["a", "b"], ModelOptions(adapter="adapter"))


def test_without_gradio_one_line_says_what_to_install(uninstall: Callable[..., None]) -> None:
    uninstall("gradio")
    result = CliRunner().invoke(app, ["web"])
    assert result.exit_code == 2 and result.stderr == 'error: fluxsr web needs gradio; pip install "fluxsr[web]"\n'


def test_what_visitors_may_do_is_typed_option_by_option(monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxsr.serving import web_server

    seen: list[Any] = []
    monkeypatch.setattr(web_server, "serve", lambda models, options, limits, *rest: seen.append((options, limits)))
    for given in (
        [],
        ["--compile", "--memory", "8gb", *(f"--{field.name.replace('_', '-')}=7" for field in fields(WebLimits))],
    ):
        assert CliRunner().invoke(app, ["web", *given], catch_exceptions=False).exit_code == 0
    assert seen == [
        (ModelOptions(), WebLimits()),
        (ModelOptions(memory="8gb", compile=True), WebLimits(**{field.name: 7 for field in fields(WebLimits)})),
    ]
