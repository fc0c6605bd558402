"""Names of outputs: those that ``fluxsr upscale`` would give."""

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
    """Names of outputs below their place, in the order of the inputs, and notes on those that are renamed.

    Args:
        inputs: the path or URL of each, and the part of it that the output keeps.
        ending: of the outputs, with its dot; None follows each input.
        suffix: put between name and ending.
        listed: whether each was named by the user, as in a manifest.
    """
    root = Path(os.sep, "out")  # any: nothing is looked up there
    found = [Found(Path(os.sep, path), Path(inside), listed) for path, inside in inputs]
    targets, notes = output_paths(found, root, ending, suffix)
    return [targets[entry.path].relative_to(root).as_posix() for entry in found], notes


def checked(found: Listing, out: Storage) -> Listing:
    """The listing, if no output would replace an input.

    Raises:
        InputError: one would.
    """
    sources = {item.source for item in found.items}
    for item in found.items:
        target = out.url(item.name)
        if target in sources:
            raise InputError(f"{item.source}: the output {target} would replace an input; choose another -o")
    return found
