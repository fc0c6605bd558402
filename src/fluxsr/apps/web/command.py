"""``fluxsr web``: what can be said on its command line."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Annotated, Optional

import typer

from fluxsr.apps.about import reported
from fluxsr.apps.arguments import Adapter, Config, Debug, Device
from fluxsr.apps.web.limits import Limits
from fluxsr.errors import InputError

_OWN = Limits()

Models = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--model", help="As of fluxsr upscale; several times for several to choose from; else bundled."),
]


def web(
    model: Models = None,
    config: Config = None,
    adapter: Adapter = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 7860,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger pictures.")] = _OWN.max_pixels,
    max_output_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger results.")] = _OWN.max_output_pixels,
    max_upload: Annotated[int, typer.Option(min=1, help="MB of one file.")] = _OWN.max_upload,
    batch_limit: Annotated[int, typer.Option(min=1, help="Pictures of one batch.")] = _OWN.batch_limit,
    queue: Annotated[int, typer.Option(min=1, help="Visitors that wait; one is served at a time.")] = _OWN.queue,
    time_limit: Annotated[int, typer.Option(min=1, help="Seconds of one picture, or one batch.")] = _OWN.time_limit,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bf16, fp16 or fp32.")] = "auto",
    memory: Annotated[str, typer.Option(help="auto, 8gb, 12gb, 16gb, 24gb or max; of a GPU.")] = "auto",
    debug: Debug = False,
) -> None:
    """A page in the browser: upscale pictures and compare. Ends with Ctrl-C."""
    with reported(debug):
        models = checked(model or ["bundled"], adapter, config)
        from fluxsr.apps.batch import Options
        from fluxsr.apps.web.server import serve

        limits = Limits(max_pixels, max_output_pixels, max_upload, batch_limit, queue, time_limit)
        options = Options(config=config, adapter=adapter, device=device, dtype=dtype, memory=memory)
        serve(models, options, limits, host, port)


def checked(models: list[str], adapter: str | None, config: str | None) -> dict[str, str]:
    """Models by the names that visitors see: no folders of this machine.

    Raises:
        InputError: names that are alike, options that fit one model with several, or no gradio.
    """
    if importlib.util.find_spec("gradio") is None:
        raise InputError("fluxsr web needs gradio; install it with `pip install 'fluxsr[web]'`")
    if len(models) > 1 and (adapter or config):
        raise InputError("--adapter and --config fit one --model; write each of several with fluxsr export first")
    names = [Path(model).name for model in models]
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{count} models are called {name}; visitors could not tell them apart, rename a folder")
    return dict(zip(names, models, strict=True))
