"""Read a request: its options, and its image into a file, within the limits on bytes, pixels and seconds."""

from __future__ import annotations

import base64
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from email.message import Message
from pathlib import Path, PurePath, PureWindowsPath
from typing import IO, Any

import anyio
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from fluxsr.errors import InputError
from fluxsr.options import SIZES, UpscaleOptions, declared, unknown_option
from fluxsr.serving.errors import ServiceError
from fluxsr.serving.http_stream import checked_size, limited_chunks, too_large
from fluxsr.serving.limits import HttpLimits

OFFERED = [name for name, option in declared(UpscaleOptions).items() if not option.local]
"""Options that a client may choose."""
FILES = ("image", "mask")
_FORM, _JSON = "multipart/form-data", "application/json"
_NAME_LETTERS = 150  # of an image's name
_FIELD_BYTES = 64 << 10  # of a body besides its image, and of one field
_JSON_BYTES = 16 << 20  # of an image in JSON, which is in memory several times
_JSON_SIGNS = 64  # commas and brackets in JSON, because the objects that they make are many times larger than the body


Received = tuple[UpscaleOptions, str]
"""The options of a request, and the name of its image; empty if it has none."""


async def read_body(
    request: Request, path: Path, limits: HttpLimits
) -> tuple[UpscaleOptions, str, tuple[int, int] | None]:
    """Read a form, a JSON body or an image. Options may also stand in the query, where those of the body win.

    A mask is written beside the image.

    FastAPI's own form parameters would read the whole body before the key and the limit on jobs are checked.

    Args:
        request: a request whose body was not read.
        path: file to write the image to.
        limits: limits on bytes, pixels and seconds.

    Returns:
        The options, the stem of the image's name, and the (width, height) of the image if its header tells.

    Raises:
        ServiceError: the body cannot be used.
        ClientDisconnect: the client has left.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    image = kind.startswith("image/") or kind == "application/octet-stream"
    if not image and kind not in (_FORM, _JSON):
        message = f"the body is {kind or 'of no type'}; send {_FORM}, {_JSON} or an image of type image/*"
        raise ServiceError("unsupported_body", message)
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "wait"]
    _check_unique((name for name, _ in query), "query")
    asked = parse_options(dict(query), limits, text=True).model_dump(include={name for name, _ in query})
    read = _read_image if image else _read_json if kind == _JSON else _read_form
    try:
        with anyio.fail_after(limits.upload_seconds):
            options, name = await read(request, path, limits, asked)
    except TimeoutError:
        message = f"the body did not arrive within {limits.upload_seconds:g} s"
        raise ServiceError("upload_too_slow", message) from None
    if not path.stat().st_size:
        raise ServiceError("invalid_option", "image is empty; send an image file as 'image'")
    with path.open("rb") as file:
        return options, _stem(name), await anyio.to_thread.run_sync(checked_size, file, limits.max_pixels)


def _stem(name: str) -> str:
    """Return the stem of a client's file name, whatever its system, without its folders."""
    return PurePath(PureWindowsPath(name).name).stem[:_NAME_LETTERS]


def parse_options(
    values: Mapping[str, Any], limits: HttpLimits, *, text: bool, asked: Mapping[str, Any] | None = None
) -> UpscaleOptions:
    """Return the options of a request.

    Args:
        values: option values by name, as they were sent.
        limits: the server's ``max_tile`` bounds the memory that a client can ask for.
        text: whether all values are text, as in a form. JSON has types, which must be right already.
        asked: further options, which ``values`` replace.

    Raises:
        ServiceError: invalid_option, which names the first option that cannot be used.
    """
    try:
        for name in values:
            if name not in OFFERED:
                raise unknown_option(name, OFFERED)
        given = UpscaleOptions.from_text(values).model_dump(include=set(values)) if text else dict(values)
        sized = any(given.get(name) is not None for name in SIZES)  # which replaces any other size
        kept = {name: value for name, value in (asked or {}).items() if not (sized and name in SIZES)}
        options = UpscaleOptions(**{**kept, **given})
    except InputError as error:
        raise ServiceError("invalid_option", str(error)) from None
    if options.tile_size is not None and options.tile_size > limits.max_tile:
        message = f"tile_size is {options.tile_size}; this server takes up to {limits.max_tile}"
        raise ServiceError("invalid_option", message)
    return options


def _check_unique(names: Iterable[str], place: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ServiceError("malformed", f"{name} occurs {count} times in the {place}")


async def _read_image(request: Request, path: Path, limits: HttpLimits, asked: Mapping[str, Any]) -> Received:
    with path.open("xb") as file:
        async for chunk in limited_chunks(request, limits.max_bytes, too_large(limits), limits.max_pixels, form=False):
            await anyio.to_thread.run_sync(file.write, chunk)
    header = Message()
    header["Content-Disposition"] = request.headers.get("content-disposition", "")
    return UpscaleOptions(**asked), header.get_filename("")


async def _read_json(request: Request, path: Path, limits: HttpLimits, asked: Mapping[str, Any]) -> Received:
    most = min(limits.max_bytes, _JSON_BYTES)
    error = too_large(limits)
    if most == _JSON_BYTES:
        error = ServiceError("body_too_large", f"the image is larger than {most} bytes, the limit in JSON; send a form")
    body = bytearray()
    async for chunk in limited_chunks(request, most * 3 // 2 + _FIELD_BYTES, error):
        body += chunk
    return await anyio.to_thread.run_sync(_parse_json, body, path, limits, asked), ""


def _parse_json(body: bytearray, path: Path, limits: HttpLimits, asked: Mapping[str, Any]) -> UpscaleOptions:
    if sum(map(body.count, (b"{", b"[", b","))) > _JSON_SIGNS:
        raise ServiceError("malformed", f"the body has more than {_JSON_SIGNS} brackets and commas; send flat options")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServiceError("malformed", f"the body is not valid JSON: {str(error) or type(error).__name__}") from None
    if not isinstance(values, dict):
        raise ServiceError("malformed", f"the body is a JSON {type(values).__name__}; send an object")
    files = {name: values.pop(name) for name in FILES if name in values}
    if not all(isinstance(data, str) for data in files.values()) or "image" not in files:
        raise ServiceError("invalid_option", "image is missing or a file is not a string; send files in base64")
    options = parse_options(values, limits, text=False, asked=asked)
    for name, data in files.items():
        content = _from_base64(name, data)
        if len(content) > limits.max_bytes:
            raise too_large(limits)
        path.with_name(name).write_bytes(content)
    return options


def _from_base64(name: str, data: str) -> bytes:
    """Return the contents of a file in base64, whose lines may be wrapped, or of a data: URL."""
    if data[:5].lower() == "data:":
        head, _, data = data.partition(",")
        if not head.lower().endswith(";base64"):
            raise ServiceError(
                "invalid_option", f"{name} is a data: URL without base64; send data:image/png;base64,..."
            )
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except ValueError as error:
        raise ServiceError("invalid_option", f"{name} is not valid base64: {error}") from None


class _FormParser(MultiPartParser):
    """Starlette's parser, which here notes whether the last boundary has arrived."""

    complete = False

    def on_end(self) -> None:
        self.complete = True


async def _read_form(request: Request, path: Path, limits: HttpLimits, asked: Mapping[str, Any]) -> Received:
    stream = limited_chunks(request, limits.max_bytes + _FIELD_BYTES, too_large(limits), limits.max_pixels)
    parser = _FormParser(
        request.headers, stream, max_files=len(FILES), max_fields=len(OFFERED), max_part_size=_FIELD_BYTES
    )
    try:
        async with aclosing(stream):
            form = await parser.parse()
    except MultiPartException as error:
        code = "body_too_large" if "exceeded" in error.message else "malformed"
        raise ServiceError(code, f"the body is not a valid form: {error.message}") from None
    try:
        if not parser.complete:
            raise ServiceError("malformed", "the body ends before its last boundary")
        _check_unique((name for name, _ in form.multi_items()), "form")
        fields = dict(form)
        files = {name: file for name in FILES if isinstance(file := fields.get(name), UploadFile)}
        if "image" not in files:
            raise ServiceError("invalid_option", "image is missing or not a file; send an image file as 'image'")
        options = parse_options({k: v for k, v in fields.items() if k not in files}, limits, text=True, asked=asked)
        if sum(file.size or 0 for file in files.values()) > limits.max_bytes:
            raise too_large(limits)
        for name, file in files.items():
            await anyio.to_thread.run_sync(_save, file.file, path.with_name(name))
        return options, files["image"].filename or ""
    finally:
        await form.close()


def _save(source: IO[bytes], path: Path) -> None:
    with path.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
