"""Images of a batch, and the listing of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from fluxsr.imaging.listing import PassedOver


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        name: name of its output below the output folder.
        source: path or URL of the file, or of the shard that contains it.
        stamp: known state of the source; if it changes, the image is upscaled again.
        member: its name within the shard; empty for a file.
        start, size: position of its bytes in the shard.
        again: whether to replace an existing output.
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
        """Its name in messages and in the report."""
        return f"{self.source}::{self.member}" if self.member else self.source

    @property
    def shard(self) -> str:
        """Name of the shard of its output; empty for a file."""
        return self.name.partition("/")[0] if self.member else ""


@dataclass
class Listing:
    """All images of a batch.

    Attributes:
        items: the images, with unique names.
        shards: URL of each input shard by its name; outputs are packed into shards too.
        notes: messages for the user.
        passed: files that the search for images skipped.
    """

    items: list[Item] = field(default_factory=list)
    shards: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    passed: PassedOver = field(default_factory=PassedOver)
