"""``fluxsr serve``. Light: fastapi and torch are imported once it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxsr.cli.arguments import Debug, expand_dataclass_options
from fluxsr.cli.cli_errors import report_errors
from fluxsr.errors import InputError, needed
from fluxsr.options import ModelOptions
from fluxsr.serving.api.limits import Limits


@expand_dataclass_options
def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    model: ModelOptions,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A key a line, any of which opens; else the variable FLUXSR_API_KEY; else none.")
    ] = None,
    api_key: Annotated[str, typer.Option(envvar="FLUXSR_API_KEY", hidden=True)] = "",
    limits: Limits,
    debug: Debug = False,
) -> None:
    """Upscale over HTTP; docs/api.md has the routes, /openapi.json describes them."""
    with report_errors(debug):
        needed("fluxsr serve", "serve", "fastapi", "uvicorn", "python_multipart", "prometheus_client")
        keys = keys_of(api_key_file, api_key)
        from fluxsr.serving.api import server

        server.serve(model, limits, host, port, keys, debug)


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
