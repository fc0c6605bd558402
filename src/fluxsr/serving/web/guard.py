"""Only requests of our own page, for files of our own, reach gradio, which would fetch addresses that it is given."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# The page loads nothing from elsewhere, and were a part of gradio to try, the browser would not let it.
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'none'; font-src 'self' data:; object-src 'none'; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_MOST = 1_000_000  # bytes of a request that is no upload; the page's have a few thousand
_ADDRESS = re.compile(r"\W*[a-z][a-z0-9+.-]+:\s*[/\\]|\s*[/\\]{2}", re.IGNORECASE)  # a scheme, or a host without one
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_FILE = re.compile(r"/file=(.*)", re.DOTALL)


def guarded(app: Any, folders: Sequence[Path] = (), local: bool = False) -> Any:
    """An ASGI application for this page alone.

    What may be asked for is listed, not what may not: a file is one below ``folders``, named by its path there, and
    no other value of a request may be an address. So it does not matter where in a request gradio looks for one.

    Args:
        app: of gradio.
        folders: whose files the page shows and takes.
        local: whether the page is served to this machine alone. Then a request for another host name is refused: a page
            elsewhere, whose name was pointed at this machine, would send it (DNS rebinding).
    """
    roots = [os.path.realpath(folder) for folder in folders]

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        if scope["type"] != "http":
            await app(scope, receive, answer)
            return
        allowed = _same_origin(scope) and _path_is_ours(_decoded(scope["path"]), roots)
        allowed = allowed and (not local or urlsplit(f"//{_host(scope)}").hostname in _LOOPBACK)
        if allowed and scope["method"] not in ("GET", "HEAD", "OPTIONS") and not _is_upload(scope["path"]):
            receive, body = await _read(receive)
            body = None if body is None else _without_addresses(body, _host(scope), roots)
            allowed = body is not None
            if body is not None:
                receive, scope = _replaying(body, receive), _with_length(scope, len(body))
        if allowed:
            await app(scope, receive, answer)
        else:
            await answer({"type": "http.response.start", "status": 403})
            await answer({"type": "http.response.body", "body": b"not here"})

    return inner


def _same_origin(scope: Any) -> bool:
    """Whether a request comes from our page, as far as it says."""
    origin = dict(scope["headers"]).get(b"origin", b"").split(b"://")[-1]
    return origin in (b"", dict(scope["headers"]).get(b"host"))


def _host(scope: Any) -> str:
    return str(dict(scope["headers"]).get(b"host", b"").decode("latin-1"))


def _is_upload(path: str) -> bool:
    return path.rstrip("/").endswith("/gradio_api/upload")  # a file is in it, and no names of others


def _decoded(text: str) -> str:
    """A text without its percent codes, also of codes within codes."""
    while (plain := unquote(text)) != text:
        text = plain
    return text


def _path_is_ours(path: str, roots: Sequence[str]) -> bool:
    """Whether a request's path names no file, or one of ours. ``proxy=`` is for pages of others, and we show none."""
    lower = path.lower()
    if "proxy=" in lower or "/file/" in lower:
        return False
    if "file=" not in lower:
        return not _is_address(path.lstrip("/"))
    found = _FILE.search(path)
    return found is not None and "/file=" not in found.group(1) and _is_within(found.group(1), roots)


def _is_within(path: str, roots: Sequence[str]) -> bool:
    if "\0" in path or not os.path.isabs(path):
        return False
    real = os.path.realpath(path)
    return any(real == root or real.startswith(root + os.sep) for root in roots)


def _without_addresses(body: bytes, host: str, roots: Sequence[str]) -> bytes | None:
    """Return a JSON body without the addresses of our own files; None if it names another address or file.

    The page sends a file's address along with its path. gradio needs the path alone, and the name of the host in the
    address is only what the client says, so no address reaches gradio.
    """
    try:
        data = json.loads(body) if body.strip() else None
        values = list(_strings("", data))
    except (ValueError, RecursionError):
        return None
    for key, value in values:
        if key.lower() == "path":
            if not _is_within(value, roots):
                return None
        elif _is_address(value) and not (key == "url" and _is_own_address(value, host, roots)):
            return None
    cleaned = _without_urls("", data)
    return body if cleaned == data else json.dumps(cleaned).encode()


def _is_address(text: str) -> bool:
    return _ADDRESS.match(_CONTROL.sub("", _decoded(text))) is not None  # parsers of addresses drop control characters


def _without_urls(key: str, value: Any) -> Any:
    """Return a JSON value in which every address under a key "url" is null."""
    if isinstance(value, list):
        return [_without_urls(key, entry) for entry in value]
    if isinstance(value, dict):
        return {name: _without_urls(name, entry) for name, entry in value.items()}
    return None if key == "url" and isinstance(value, str) and _is_address(value) else value


def _is_own_address(text: str, host: str, roots: Sequence[str]) -> bool:
    """Whether it is where this server shows a file of ours; the page sends that along with a file's path."""
    try:
        found = urlsplit(text)
    except ValueError:
        return False
    path = _decoded(found.path)
    ours = found.scheme in ("http", "https") and found.netloc == host and not found.query and not found.fragment
    return ours and path.startswith("/gradio_api/file=") and _path_is_ours(path, roots)


def _strings(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """All texts of a JSON value, keys among them, each with the key that it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(key, entry)
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield "", name
            yield from _strings(name, entry)


def _with_length(scope: Any, length: int) -> Any:
    headers = [(name, str(length).encode() if name == b"content-length" else value) for name, value in scope["headers"]]
    return {**scope, "headers": headers}


def _replaying(body: bytes, receive: Any) -> Any:
    """Return a ``receive`` that gives a body once, and then what comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return waiting.pop() if waiting else await receive()

    return again


async def _read(receive: Any) -> tuple[Any, bytes | None]:
    """Return ``receive`` and a request's body, None where it is too long or broken off."""
    body, more = b"", True
    while more and len(body) <= _MOST:
        message = await receive()
        if message["type"] != "http.request":
            return receive, None
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return receive, None if len(body) > _MOST else body
