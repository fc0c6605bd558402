"""Images of a batch, the names of their outputs, and the listing of all of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fluxsr.cluster.storage import Storage
from fluxsr.errors import InputError
from fluxsr.imaging.listing import PassedOver
from fluxsr.processing.naming import Found, output_paths


@dataclass(frozen=True)
class Item:
    """One image."""

    name: str  # of its output below the output folder
    source: str  # path or URL of the file, or of the shard that contains it
    stamp: str = ""  # known state of the source; if it changes, the image is upscaled again
    member: str = ""  # its name within the shard; empty for a file
    start: int = 0  # position of its bytes in the shard
    size: int = 0
    again: bool = False  # whether to replace an existing output
    mask: str = ""  # path of its mask; empty without one

    @property
    def label(self) -> str:
        """Its name in messages and in the report."""
        return f"{self.source}::{self.member}" if self.member else self.source

    @property
    def shard(self) -> str:
        """Name of the shard of its output; empty for a file."""
        return self.name.partition("/")[0] if self.member else ""


@dataclass
class Listing:
    """All images of a batch."""

    items: list[Item] = field(default_factory=list)  # with unique names
    shards: dict[str, str] = field(default_factory=dict)  # URLs of input shards by name; outputs are packed like them
    notes: list[str] = field(default_factory=list)  # messages for the user
    passed: PassedOver = field(default_factory=PassedOver)  # files that the search for images skipped

    def checked(self, out: Storage) -> Listing:
        """Return the listing after checking that no output replaces an input.

        Raises:
            InputError: an output would replace an input.
        """
        sources = {item.source for item in self.items}
        for item in self.items:
            if (target := out.url(item.name)) in sources:
                raise InputError(f"{item.source}: the output {target} would replace an input; choose another -o")
        return self


def output_names(
    inputs: Sequence[tuple[str, str]], ending: str | None, suffix: str = ""
) -> tuple[list[str], list[str]]:
    """Return the names that ``fluxsr upscale`` gives to outputs, in the order of inputs, and notes on renamed ones.

    Args:
        inputs: path or URL of each input, and the part of it that the output's name keeps.
        ending: file name extension of the outputs, with its dot; None keeps each input's.
        suffix: text between name and extension.
    """
    root = Path(os.sep, "out")  # any folder, because it is not read
    found = [Found(Path(os.sep, path), Path(inside), named=False) for path, inside in inputs]
    targets, notes = output_paths(found, root, ending, suffix)
    return [targets[entry.path].relative_to(root).as_posix() for entry in found], notes
