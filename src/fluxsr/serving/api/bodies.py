"""Request bodies, read as they come: the image onto the disk, the options checked, and no byte or pixel too many."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from fluxsr.errors import TooLargeError
from fluxsr.imaging.decode import size_of
from fluxsr.options import UpscaleOptions
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.options import checked
from fluxsr.serving.api.problems import Problem

TYPES = ("multipart/form-data", "application/json")
_FIELDS = 64 << 10  # bytes of a body beside its image
_JSON = 16 << 20  # bytes of an image in JSON, which is in memory several times; larger ones come as forms
_SIGNS = 64  # commas and brackets in JSON; the options are few and flat, and base64 has none of these
_HEAD = 1 << 20  # of an image, in which its size is looked for


class Upload:
    """An image file as it comes in; refused as soon as it is too long or tells that it is too large.

    Args:
        path: where it goes.
        limits: ``max_bytes`` and ``max_pixels``.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._file, self._limits = path.open("xb"), limits
        self._head, self._look = bytearray(), 1 << 10
        self.length = 0
        self.size: tuple[int, int] | None = None  # (width, height), once it is known

    def write(self, data: bytes) -> None:
        """The next bytes.

        Raises:
            Problem: body_too_large, too_many_pixels.
        """
        self.length += len(data)
        if self.length > self._limits.max_bytes:
            raise _too_long(self._limits)
        self._file.write(data)
        if self.size is None and len(self._head) < _HEAD:
            self._head += data[: _HEAD - len(self._head)]
            if len(self._head) >= self._look:
                self._look = 2 * len(self._head)
                self._sized(io.BytesIO(self._head))

    def close(self) -> None:
        """All is there, or no more will come."""
        self._file.close()

    def measure(self) -> None:
        """Look at the whole file: at a small one, or one that tells its size at the end.

        Raises:
            Problem: too_many_pixels.
        """
        if self.size is None:
            with open(self._file.name, "rb") as file:
                self._sized(file)

    def _sized(self, file: Any) -> None:
        try:
            self.size = size_of(file)
        except TooLargeError as error:
            raise Problem("too_many_pixels", f"the image is {error}") from error
        if self.size is not None and self.size[0] * self.size[1] > self._limits.max_pixels:
            width, height = self.size
            raise Problem(
                "too_many_pixels", f"the image has {width}x{height} pixels; the limit is {self._limits.max_pixels}"
            )


async def received(request: Request, path: Path, limits: Limits) -> tuple[UpscaleOptions, tuple[int, int] | None]:
    """Read a body of either type; whatever comes of it, the file is closed.

    Args:
        request: its body untouched.
        path: where the image goes.
        limits: of bytes, pixels and seconds.

    Returns:
        The options, and (width, height) of the image where its header tells.

    Raises:
        Problem: what is wrong with it.
        ClientDisconnect: the client is gone.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    if kind.decode("latin-1") not in TYPES:
        raise Problem(
            "unsupported_body", f"the body is {kind.decode('latin-1') or 'of no type'}; send {TYPES[0]} or {TYPES[1]}"
        )
    image = Upload(path, limits)
    try:
        with anyio.fail_after(limits.upload_seconds):
            if kind == b"application/json":
                options = await _json(request, image, limits)
            else:
                options = await _form(request, parameters.get(b"boundary", b""), image, limits)
    except TimeoutError:
        raise Problem("upload_too_slow", f"the body was not there within {limits.upload_seconds:g} s") from None
    finally:
        image.close()
    if not image.length:
        raise Problem("invalid_option", "image is missing or empty; send the picture as 'image'")
    await anyio.to_thread.run_sync(image.measure)
    return options, image.size


async def _chunks(request: Request, limit: int, problem: Problem) -> AsyncIterator[bytes]:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise problem
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise problem
        yield chunk


async def _json(request: Request, image: Upload, limits: Limits) -> UpscaleOptions:
    body, most = bytearray(), min(limits.max_bytes, _JSON)
    problem = Problem("body_too_large", f"the image is larger than {most} bytes, the limit in JSON; send a form")
    async for chunk in _chunks(request, most * 4 // 3 + _FIELDS, problem if most == _JSON else _too_long(limits)):
        body += chunk
    return await anyio.to_thread.run_sync(_of_json, body, image, limits)


def _of_json(body: bytearray, image: Upload, limits: Limits) -> UpscaleOptions:
    if sum(map(body.count, (b"{", b"[", b","))) > _SIGNS:  # their objects would be many times the body
        raise Problem("malformed", f"the body has more than {_SIGNS} brackets and commas; options are few and flat")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem("malformed", f"the body is no JSON: {str(error) or type(error).__name__}") from None
    if not isinstance(values, dict):
        raise Problem("malformed", f"the body is a JSON {type(values).__name__}; send an object")
    data = values.pop("image", None)
    if not isinstance(data, str):
        raise Problem("invalid_option", "image is missing, or no string; send the picture's bytes in base64")
    options = checked(values, limits, text=False)
    try:
        image.write(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError) as error:
        raise Problem("invalid_option", f"image is no base64: {error}") from None
    return options


async def _form(request: Request, boundary: bytes, image: Upload, limits: Limits) -> UpscaleOptions:
    try:
        form = _Form(boundary, image)
        async for chunk in _chunks(request, limits.max_bytes + _FIELDS, _too_long(limits)):
            await anyio.to_thread.run_sync(form.parser.write, chunk)  # it writes to the disk and looks at headers
        form.parser.finalize()
    except FormParserError as error:
        raise Problem("malformed", f"the body is no multipart/form-data: {error}") from None
    if not form.ended:
        raise Problem("malformed", "the body ends before its last boundary")
    return checked(form.fields, limits, text=True)


class _Form:
    """Parts of a form: ``image`` goes where it belongs, all else is a short text."""

    def __init__(self, boundary: bytes, image: Upload) -> None:
        self.fields: dict[str, Any] = {}
        self.ended = False
        self._image = image
        self._name, self._header, self._value, self._text = "", b"", b"", bytearray()
        self._disposition, self._seen, self._beside = b"", set[str](), 0
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._field,
                "on_header_value": self._valued,
                "on_header_end": self._header_end,
                "on_headers_finished": self._named,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def _begin(self) -> None:
        self._disposition, self._header, self._value, self._text = b"", b"", b"", bytearray()

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _valued(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _named(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if not self._name:
            raise Problem("malformed", "a part of the form has no name")
        if self._name in self._seen:
            raise Problem("malformed", f"{self._name} is there twice")
        self._seen.add(self._name)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "image":
            self._image.write(data[start:end])
            return
        self._beside += end - start
        if self._beside > _FIELDS:
            raise Problem("body_too_large", f"the fields beside the image are larger than {_FIELDS} bytes")
        self._text += data[start:end]

    def _end(self) -> None:
        if self._name != "image":
            self.fields[self._name] = self._text.decode("utf-8", "replace")

    def _finish(self) -> None:
        self.ended = True


def _too_long(limits: Limits) -> Problem:
    return Problem("body_too_large", f"the image is larger than {limits.max_bytes} bytes")
