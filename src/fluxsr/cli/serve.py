"""``fluxsr serve``. The module is light: fastapi and torch are imported once the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxsr.cli.arguments import Debug, expand_dataclass_options
from fluxsr.cli.cli_errors import report_errors
from fluxsr.errors import InputError, needed
from fluxsr.options import ModelOptions
from fluxsr.serving.limits import HttpLimits


@expand_dataclass_options
def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    model: ModelOptions,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with one API key in each line. Defaults to FLUXSR_API_KEY, if set.")
    ] = None,
    api_key: Annotated[str, typer.Option(envvar="FLUXSR_API_KEY", hidden=True)] = "",
    limits: HttpLimits,
    debug: Debug = False,
) -> None:
    """Serve upscaling over HTTP. docs/api.md shows how to use it, /openapi.json describes the routes."""
    with report_errors(debug):
        needed("fluxsr serve", "serve", "fastapi", "uvicorn", "python_multipart", "prometheus_client")
        keys = keys_of(api_key_file, api_key)
        from fluxsr.serving.http_server import serve as serve_http

        serve_http(model, limits, host, port, keys, debug)


def keys_of(file: Path | None, key: str) -> list[str]:
    """Return the API keys of the file, or the one of the environment if there is no file.

    Raises:
        InputError: the file cannot be read or holds no key. Without a key, the server would be open to all.
    """
    if file is None:
        return [key] if key else []
    try:
        keys = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--api-key-file {file} cannot be read: {error}") from error
    if not keys:
        raise InputError(f"--api-key-file {file} holds no key; write one key in each line")
    return keys
