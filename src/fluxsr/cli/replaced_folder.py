"""Write a folder completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluxsr.errors import OutputError


@contextmanager
def replaced_folder(output: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces ``output`` once the block is complete, and is deleted if it fails.

    An old folder is deleted with everything in it, so the caller checks first that it may go. Of a link only the link
    is deleted.

    Raises:
        OutputError: the folder cannot be written.
    """
    partial, old = (output.with_name(f".{output.name}.{word}-{os.getpid()}") for word in ("partial", "old"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if output.is_symlink():
            output.unlink()
        elif output.exists():
            os.replace(output, old)
        os.replace(partial, output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error}") from error
    finally:
        if old.exists() and not output.exists():  # the second rename failed
            os.replace(old, output)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
