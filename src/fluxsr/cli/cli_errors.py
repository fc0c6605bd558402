"""Errors of the commands as one line. Light to import."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from fluxsr.errors import FluxSRError, InputError
from fluxsr.names import printable


@contextmanager
def report_errors(debug: bool = False) -> Iterator[None]:
    """Turn errors that users can act on into one line and an exit code; bugs keep their traceback.

    Exit codes: 2 for an InputError, 1 for other errors, 130 after Ctrl-C. With ``debug`` errors pass unchanged.
    """
    try:
        yield
    except FluxSRError as error:
        if debug:
            raise
        typer.echo(printable(f"error: {error}"), err=True)
        raise SystemExit(2 if isinstance(error, InputError) else 1) from error
    except KeyboardInterrupt as error:
        typer.echo("stopped; finished results are kept, and the same command continues", err=True)
        raise SystemExit(130) from error
