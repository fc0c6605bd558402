"""What Pillow lacks of AVIF: how often an animation is shown, animations larger than the memory, code points."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import IO

from PIL import Image

from fluxsr.imaging.formats.boxes import top

_HEADERS = re.compile(rb"mvhd|tkhd|mdhd")  # their layout is that of version 1, which libavif writes
_FOREVER = {4: (1 << 32) - 1, 8: (1 << 64) - 1}


class Animation(Image.Image):
    """An image for Pillow to save, whose frames are made when it asks for them.

    Attributes:
        times: milliseconds of the frames so far, which Pillow reads after each frame.
        error: what ended the frames early. Pillow would take it for an error of its own.
    """

    is_animated = True

    def __init__(self, frames: Iterator[tuple[Image.Image, float]]) -> None:
        super().__init__()
        self._frames, self.times = frames, list[int]()
        self.error: Exception | None = None
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Go to a frame, but never back."""
        while len(self.times) <= frame and not self.error:
            try:
                image, milliseconds = next(self._frames)
            except StopIteration:
                raise EOFError from None
            except Exception as error:
                self.error = error
                raise EOFError from error
            image = image.convert({"L": "RGB", "LA": "RGBA"}.get(image.mode, image.mode))
            self.im, self._mode, self._size = image.im, image.mode, image.size
            self.times.append(max(1, round(milliseconds)))


def plays(file: IO[bytes]) -> int:
    """Return how often an animation is shown; 0 means without end."""
    moov = top(file, b"moov")
    track, edits = moov.find(b"tkhd"), moov.find(b"elst")
    if min(track, edits) < 0 or len(moov) < max(track + 40, edits + 20):
        return 0
    if not moov[edits + 7] & 1:
        return 1
    wide = 8 if moov[track + 4] else 4
    whole = int.from_bytes(moov[track + 16 + 2 * wide :][:wide], "big")
    once = int.from_bytes(moov[edits + 12 :][: 8 if moov[edits + 4] else 4], "big")
    return 0 if whole == _FOREVER[wide] or not once else max(1, round(whole / once))


def finish(data: bytearray, times: int, cicp: bytes | None) -> None:
    """Set in a file of libavif how often it is shown, and code points that Pillow only announces, in place.

    The time of writing is removed, so that outputs stay reproducible.
    """
    head = bytes(data[: data.find(b"mdat")])
    for found in re.finditer(b"colrnclx", head) if cicp else ():
        struct.pack_into(">HH", data, found.end(), *(cicp or b"")[:2])
    edits = head.find(b"elst")
    for found in _HEADERS.finditer(head) if edits >= 0 else ():
        place, kind = found.start(), found[0]
        data[place + 8 : place + 24] = bytes(16)
        if times and kind != b"mdhd":
            (once,) = struct.unpack_from(">Q", head, edits + 12)
            struct.pack_into(">Q", data, place + (32 if kind == b"tkhd" else 28), once * times)
