"""Chunks of a request's body, within the limits on bytes and pixels."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from typing import IO

import anyio
from starlette.requests import Request

from fluxsr.errors import TooLargeError
from fluxsr.imaging.decode import size_of
from fluxsr.serving.errors import ServiceError
from fluxsr.serving.limits import HttpLimits

_HEAD_BYTES = 1 << 20  # in which the size of an image is looked for


async def limited_chunks(
    request: Request, max_bytes: int, error: ServiceError, max_pixels: int | None = None, form: bool = True
) -> AsyncGenerator[bytes, None]:
    """Yield a body in chunks.

    Args:
        request: a request whose body was not read.
        max_bytes: length of the body above which ``error`` is raised.
        error: the error of a body that is too long.
        max_pixels: refuse the image as soon as its header tells of more pixels; None for JSON.
        form: whether the image is a part of a form. Otherwise it is the whole body.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise error
    total, head, look_at = 0, bytearray(), 1 << 10
    async for chunk in request.stream():
        total += len(chunk)
        if total > max_bytes:
            raise error
        yield chunk
        if max_pixels is not None and len(head) < _HEAD_BYTES:
            head += chunk[: _HEAD_BYTES - len(head)]
            if len(head) >= look_at:
                look_at = 2 * len(head)
                start = _start_of_image(head) if form else 0
                if start >= 0:
                    await anyio.to_thread.run_sync(checked_size, io.BytesIO(head[start:]), max_pixels)


def _start_of_image(head: bytearray) -> int:
    """Return where the image begins in a form, or -1; no regular expression, which hostile bytes would make slow."""
    name = head.find(b'name="image"')
    end = head.find(b"\r\n\r\n", name)
    return end + 4 if name >= 0 and end >= 0 else -1


def checked_size(file: IO[bytes], max_pixels: int) -> tuple[int, int] | None:
    """Return the (width, height) of an image or of its beginning; None if it does not tell.

    Raises:
        ServiceError: too_many_pixels.
    """
    try:
        size = size_of(file)
    except TooLargeError as error:
        raise ServiceError("too_many_pixels", f"the image is {error}") from error
    if size is not None and size[0] * size[1] > max_pixels:
        message = f"the image has {size[0]}x{size[1]} pixels; the limit is {max_pixels}"
        raise ServiceError("too_many_pixels", message)
    return size


def too_large(limits: HttpLimits) -> ServiceError:
    return ServiceError("body_too_large", f"the image is larger than {limits.max_bytes} bytes")
