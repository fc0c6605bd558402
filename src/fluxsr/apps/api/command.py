"""``fluxsr serve``. Light: fastapi and torch are imported once it runs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from fluxsr.apps.about import reported
from fluxsr.apps.api.limits import Limits
from fluxsr.apps.arguments import (
    Adapter,
    Compile,
    Config,
    Debug,
    Device,
    Dtype,
    DtypeOption,
    Memory,
    MemoryOption,
    Model,
)
from fluxsr.errors import InputError

_NEEDS = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_OF = Limits()


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    model: Model = "bundled",
    config: Config = None,
    adapter: Adapter = None,
    dtype: DtypeOption = Dtype.auto,
    device: Device = "auto",
    memory: MemoryOption = Memory.auto,
    compile: Compile = False,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A key a line, any of which opens; else the variable FLUXSR_API_KEY; else none.")
    ] = None,
    api_key: Annotated[str, typer.Option(envvar="FLUXSR_API_KEY", hidden=True)] = "",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Jobs at work at a time.")] = _OF.workers,
    queue: Annotated[int, typer.Option(min=0, help="Jobs that wait; with more the answer is 429.")] = _OF.queue,
    batch: Annotated[int, typer.Option(min=1, help="Tiles of all jobs per forward pass.")] = _OF.batch,
    batch_wait: Annotated[float, typer.Option(min=0, help="Seconds a tile waits for its like.")] = _OF.batch_wait,
    max_bytes: Annotated[int, typer.Option(min=1, help="Of an image file.")] = _OF.max_bytes,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of an image.")] = _OF.max_pixels,
    max_output_pixels: Annotated[int, typer.Option(min=1, help="Of a result.")] = _OF.max_output_pixels,
    sync_pixels: Annotated[int, typer.Option(min=0, help="Larger results are jobs (202).")] = _OF.sync_pixels,
    upload_seconds: Annotated[float, typer.Option(min=0.1, help="For a body to come in.")] = _OF.upload_seconds,
    keep_seconds: Annotated[float, typer.Option(min=1, help="A job's result is kept.")] = _OF.keep_seconds,
    keep_bytes: Annotated[int, typer.Option(min=1, help="Of all kept results.")] = _OF.keep_bytes,
    grace: Annotated[float, typer.Option(min=0, help="Seconds for running jobs after SIGTERM.")] = _OF.grace,
    debug: Debug = False,
) -> None:
    """Upscale over HTTP; docs/api.md has the routes, /openapi.json describes them."""
    limits = Limits(
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_output_pixels=max_output_pixels,
        sync_pixels=sync_pixels,
        upload_seconds=upload_seconds,
        workers=workers,
        queue=queue,
        batch=batch,
        batch_wait=batch_wait,
        keep_seconds=keep_seconds,
        keep_bytes=keep_bytes,
        grace=grace,
    )
    with reported(debug):
        missing = [package for package in _NEEDS if find_spec(package) is None]
        if missing:
            raise InputError(f'fluxsr serve needs {", ".join(missing)}; pip install "fluxsr[serve]"')
        keys = keys_of(api_key_file, api_key)
        from fluxsr.apps.api import server
        from fluxsr.apps.batch import Options

        options = Options(
            model=model,
            config=config,
            adapter=adapter,
            device=device,
            dtype=dtype.value,
            memory=memory.value,
            compile=compile,
        )
        server.serve(options, limits, host, port, keys, debug)


def keys_of(file: Path | None, key: str) -> list[str]:
    """The API keys: those of the file, else the one of the environment.

    Raises:
        InputError: a file that cannot be read or holds none: it would open the server to all.
    """
    if file is None:
        return [key] if key else []
    try:
        keys = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--api-key-file {file} cannot be read: {error}") from error
    if not keys:
        raise InputError(f"--api-key-file {file} holds no key; write one a line")
    return keys
