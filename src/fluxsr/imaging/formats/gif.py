"""Write GIF frame by frame, each with a palette of its own. Pillow would merge equal frames and hold all in memory."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
from PIL import GifImagePlugin, Image

from fluxsr.imaging.formats import FormatLimitError
from fluxsr.imaging.raster import ImageSpec

_MOST = 65535  # pixels a side, hundredths of a second, repetitions


def write(file: IO[bytes], frames: Iterable[tuple[ImageSpec, Iterable[np.ndarray]]]) -> None:
    """Write a GIF of one or more frames that replace each other; see ``png.write``. Pixels are uint8."""
    for place, (spec, bands) in enumerate(frames):
        if place == 0:
            file.write(_head(spec))
        several = spec.frame.count > 1
        image, options = _indexed(np.concatenate([*bands]), several)
        if several:
            milliseconds = 10 * min(round(spec.frame.milliseconds / 10), _MOST)
            options |= {"duration": milliseconds, "disposal": 2 if options else 1}
        file.writelines(GifImagePlugin.getdata(image, include_color_table=True, **options))
    file.write(b";")


def _head(spec: ImageSpec) -> bytes:
    if max(spec.width, spec.height) > _MOST:
        raise FormatLimitError(f"GIF has at most {_MOST} pixels a side")
    head = b"GIF89a" + struct.pack("<HHBBB", spec.width, spec.height, 0, 0, 0)
    if spec.frame.count > 1 and spec.frame.plays != 1:
        again = min(max(spec.frame.plays - 1, 0), _MOST)
        head += b"!\xff\x0bNETSCAPE2.0\3\1" + struct.pack("<HB", again, 0)
    return head + b"".join(b"!\xfe" + b"".join(_blocks(comment)) + b"\0" for comment in spec.metadata.comments)


def _blocks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 255):
        block = data[start : start + 255]
        yield bytes([len(block)]) + block


def _indexed(pixels: np.ndarray, several: bool) -> tuple[Image.Image, dict[str, Any]]:
    """Return pixels (H,W,C) as an image with a palette, and its transparent colour.

    In an animation with transparency, every frame has such a colour: readers show it where a frame is cleared.
    """
    hidden = pixels[..., -1] < 128 if pixels.shape[-1] in (2, 4) else np.zeros(pixels.shape[:2], bool)
    clear = bool(hidden.any()) or (several and pixels.shape[-1] in (2, 4))
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] <= 2 else np.ascontiguousarray(pixels[..., :3]))
    if image.mode == "L" and not clear:
        return image.convert("P"), {}  # has all 256 greys
    image = image.convert("RGB")
    image = image.quantize(palette=image.quantize(255 if clear else 256), dither=Image.Dither.FLOYDSTEINBERG)
    if not clear:
        return image, {}
    image.putpalette([*(image.getpalette() or []), *[0] * 768][:768])
    image.paste(255, mask=Image.fromarray(hidden))
    return image, {"transparency": 255}
