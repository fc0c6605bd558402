"""``fluxsr serve``. Light to import: fastapi and torch are imported when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from fluxsr.cli.arguments import Debug, Host, Port, expand_dataclass_options
from fluxsr.cli.cli_errors import report_errors
from fluxsr.errors import InputError, needed
from fluxsr.options import ModelOptions
from fluxsr.serving.limits import HttpLimits


@expand_dataclass_options
def serve(
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    model: ModelOptions,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with one API key per line. Defaults to the variable FLUXSR_API_KEY."),
    ] = None,
    api_key: Annotated[str, typer.Option(envvar="FLUXSR_API_KEY", hidden=True)] = "",
    cors: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin of web pages that may call the server, such as https://example.org, or '*'. Repeatable."
        ),
    ] = None,
    limits: HttpLimits,
    debug: Debug = False,
) -> None:
    """Start an HTTP server that upscales images.

    The routes are described in docs/api.md and at /openapi.json.
    """
    with report_errors(debug):
        needed("fluxsr serve", "serve", "fastapi", "uvicorn", "python_multipart", "prometheus_client")
        keys, origins = keys_of(api_key_file, api_key), [checked_origin(origin) for origin in cors or []]
        from fluxsr.serving.http_server import serve as serve_http

        serve_http(model, limits, host, port, keys, debug, origins)


def checked_origin(origin: str) -> str:
    """Return an origin as browsers send it.

    Raises:
        InputError: it is more or less than that, so that it would never match.
    """
    parts = urlsplit(origin)
    if origin != "*" and (not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}".lower()):
        raise InputError(f"--cors {origin} is not an origin; write it without a path, as https://example.org")
    return origin


def keys_of(file: Path | None, key: str) -> list[str]:
    """Return the API keys of the file, or else the key from the environment.

    Raises:
        InputError: the file cannot be read, or holds no key, which would open the server to everybody.
    """
    if file is None:
        return [key] if key else []
    try:
        keys = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--api-key-file {file} cannot be read: {error}") from error
    if not keys:
        raise InputError(f"--api-key-file {file} holds no key; write one key per line")
    return keys
