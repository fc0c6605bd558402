"""``fluxsr web``: what can be said on its command line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Optional

import typer

from fluxsr.cli.arguments import (
    Adapter,
    Compile,
    Config,
    Debug,
    Device,
    Dtype,
    DtypeOption,
    Memory,
    MemoryOption,
    spread,
)
from fluxsr.cli.cli_errors import reported
from fluxsr.errors import InputError, needed
from fluxsr.serving.web.limits import Limits

Models = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--model", help="As of fluxsr upscale; several times for several to choose from; else bundled."),
]


@spread
def web(
    *,
    model: Models = None,
    config: Config = None,
    adapter: Adapter = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 7860,
    limits: Limits,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
    memory: MemoryOption = Memory.auto,
    compile: Compile = False,
    debug: Debug = False,
) -> None:
    """A page in the browser: upscale pictures and compare. Ends with Ctrl-C."""
    with reported(debug):
        needed("fluxsr web", "web", "gradio")
        models = checked(model or ["bundled"], adapter, config)
        from fluxsr.processing.upscale_file import Options
        from fluxsr.serving.web.server import serve

        options = Options(
            config=config,
            adapter=adapter,
            device=device,
            dtype=dtype.value,
            memory=memory.value,
            compile=compile,
        )
        serve(models, options, limits, host, port)


def checked(models: list[str], adapter: str | None, config: str | None) -> dict[str, str]:
    """Models by the names that visitors see: no folders of this machine.

    Raises:
        InputError: names that are alike, or options that fit one model with several.
    """
    if len(models) > 1 and (adapter or config):
        raise InputError("--adapter and --config fit one --model; write each of several with fluxsr export first")
    names = [Path(model).name for model in models]
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{count} models are called {name}; visitors could not tell them apart, rename a folder")
    return dict(zip(names, models, strict=True))
