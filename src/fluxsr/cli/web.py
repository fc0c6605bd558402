"""``fluxsr web``. Light to import."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Optional

import typer

from fluxsr.cli.arguments import Debug, Host, Port, expand_dataclass_options
from fluxsr.cli.cli_errors import report_errors
from fluxsr.errors import InputError, needed
from fluxsr.options import ModelOptions
from fluxsr.serving.limits import WebLimits

Models = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--model", help="Model, as for fluxsr upscale. Repeat the option to let visitors choose. Defaults to bundled."
    ),
]


@expand_dataclass_options
def web(
    *,
    model: Models = None,
    loading: ModelOptions,
    host: Host = "127.0.0.1",
    port: Port = 7860,
    limits: WebLimits,
    debug: Debug = False,
) -> None:
    """Start a web page that upscales images and compares results. Ctrl-C stops it."""
    with report_errors(debug):
        needed("fluxsr web", "web", "gradio")
        models = checked(model or ["bundled"], loading)
        from fluxsr.serving.web_server import serve

        serve(models, loading, limits, host, port)


def checked(models: list[str], loading: ModelOptions) -> dict[str, str]:
    """Return the models by the names that visitors see, which contain no folders of this machine.

    Raises:
        InputError: two names are equal, or --adapter, --config or --vae is given with several models.
    """
    if len(models) > 1 and (loading.adapter or loading.config or loading.vae):
        raise InputError(
            "--adapter, --config and --vae fit one --model; write each of several with fluxsr export first"
        )
    names = [Path(model).name for model in models]
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{count} models are called {name}; visitors cannot tell them apart, so rename a folder")
    return dict(zip(names, models, strict=True))
