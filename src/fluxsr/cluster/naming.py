"""Names of outputs, equal to those of ``fluxsr upscale``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fluxsr.cluster.items import Listing
from fluxsr.cluster.storage import Storage
from fluxsr.errors import InputError
from fluxsr.processing.inputs import Found, output_paths


def named(
    inputs: Sequence[tuple[str, str]], ending: str | None, suffix: str = "", *, listed: bool = False
) -> tuple[list[str], list[str]]:
    """Return the names of outputs below the output folder, in the order of the inputs, and notes on renamed ones.

    Args:
        inputs: path or URL of each input, and the part of it that the output's name keeps.
        ending: file name extension of the outputs, with its dot; None keeps each input's.
        suffix: text between name and extension.
        listed: whether the user named each input, as in a manifest.
    """
    root = Path(os.sep, "out")  # any folder, because it is not read
    found = [Found(Path(os.sep, path), Path(inside), listed) for path, inside in inputs]
    targets, notes = output_paths(found, root, ending, suffix)
    return [targets[entry.path].relative_to(root).as_posix() for entry in found], notes


def checked(found: Listing, out: Storage) -> Listing:
    """Return the listing after checking that no output replaces an input.

    Raises:
        InputError: an output would replace an input.
    """
    sources = {item.source for item in found.items}
    for item in found.items:
        target = out.url(item.name)
        if target in sources:
            raise InputError(f"{item.source}: the output {target} would replace an input; choose another -o")
    return found
