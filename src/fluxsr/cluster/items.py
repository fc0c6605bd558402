"""What a batch works on: images by name, wherever they lie."""

from __future__ import annotations

from dataclasses import dataclass, field

from fluxsr.imaging.listing import PassedOver


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        name: of its output, below the output place.
        source: path or URL of the file, or of the shard that holds it.
        stamp: the state of that file, as far as it is known; a change does the image again.
        member: its name within the shard; empty for a file.
        start, size: where its bytes are in the shard.
        again: whether an output that is there is to be replaced.
    """

    name: str
    source: str
    stamp: str = ""
    member: str = ""
    start: int = 0
    size: int = 0
    again: bool = False

    @property
    def label(self) -> str:
        """As messages and the report call it."""
        return f"{self.source}::{self.member}" if self.member else self.source

    @property
    def shard(self) -> str:
        """The name of the shard that its output goes into; empty for a file."""
        return self.name.partition("/")[0] if self.member else ""


@dataclass
class Listing:
    """All there is to do.

    Attributes:
        items: no name twice.
        shards: URL of each shard by its name; their outputs are packed again.
        notes: lines for the user.
        passed: what the search for images did not look at.
    """

    items: list[Item] = field(default_factory=list)
    shards: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    passed: PassedOver = field(default_factory=PassedOver)
