"""Let only requests of our own page for our own files reach gradio, which would fetch any address that it is given."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.requests import ClientDisconnect, Request

# The page loads nothing from other servers. If a part of gradio tried to, the browser would refuse.
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
_MAX_BODY = 1_000_000  # bytes of a request that is not an upload; those of the page have a few thousand
_ADDRESS = re.compile(r"\W*[a-z][a-z0-9+.-]+:\s*[/\\]|\s*[/\\]{2}", re.IGNORECASE)  # a scheme, or a host without one
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_FILE = re.compile(r"/file=(.*)", re.DOTALL)


class _Refused(ValueError):
    """A request that is not one of our page."""


def guarded(app: Any, folders: Sequence[Path] = (), local: bool = False) -> Any:
    """Return an ASGI application that passes on requests of this page alone.

    The guard lists what is allowed, not what is forbidden: a file lies below ``folders`` and is named by its path, and
    no other value of a request may be an address. So it does not matter where in a request gradio looks for one.

    Args:
        app: gradio's application.
        folders: folders whose files the page shows and takes.
        local: whether the page is served to this machine alone. Then requests for other host names are refused, because
            a page elsewhere could point its own name at this machine (DNS rebinding).
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
        try:
            _check_head(scope, roots, local)
            if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not _is_upload(scope["path"]):
                scope, receive = await _without_addresses(scope, receive, roots)
        except (ValueError, RecursionError, ClientDisconnect):
            await answer({"type": "http.response.start", "status": 403})
            await answer({"type": "http.response.body", "body": b"forbidden"})
        else:
            await app(scope, receive, answer)

    return inner


def _check_head(scope: Any, roots: Sequence[str], local: bool) -> None:
    """Raise _Refused if a request comes from another page, for another host, or for something that is not ours."""
    origin = dict(scope["headers"]).get(b"origin", b"").split(b"://")[-1]
    if origin not in (b"", dict(scope["headers"]).get(b"host")):
        raise _Refused
    if local and urlsplit(f"//{_host(scope)}").hostname not in _LOOPBACK:
        raise _Refused
    if not _path_is_ours(_decoded(scope["path"]), roots):
        raise _Refused


def _host(scope: Any) -> str:
    return str(dict(scope["headers"]).get(b"host", b"").decode("latin-1"))


def _is_upload(path: str) -> bool:
    return path.rstrip("/").endswith("/gradio_api/upload")  # it holds a file and no names of others


def _decoded(text: str) -> str:
    """Return a text without percent codes, including codes within codes."""
    while (plain := unquote(text)) != text:
        text = plain
    return text


def _path_is_ours(path: str, roots: Sequence[str]) -> bool:
    """Return whether a request's path names no file, or one of ours. ``proxy=`` would show pages of other servers."""
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


def _is_address(text: str) -> bool:
    return _ADDRESS.match(_CONTROL.sub("", _decoded(text))) is not None  # parsers of addresses drop control characters


async def _without_addresses(scope: Any, receive: Any, roots: Sequence[str]) -> tuple[Any, Any]:
    """Return a request whose JSON body was checked, without the addresses of our own files.

    The page sends a file's address along with its path. gradio needs the path alone, and the host name in the address
    is only what the client says, so no address reaches gradio.

    Raises:
        ValueError, RecursionError: the body is too long, not JSON, or names another address or file.
        ClientDisconnect: the body is incomplete.
    """
    body = b""
    async for chunk in Request(scope, receive).stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise _Refused
    if body.strip():
        body = json.dumps(_cleaned("", json.loads(body), _host(scope), roots)).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return messages.pop() if messages else await receive()

    headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}, replay


def _cleaned(key: str, value: Any, host: str, roots: Sequence[str]) -> Any:
    """Return a JSON value in which the addresses of our own files, which stand under a key "url", are null.

    Raises:
        _Refused: a text or a key is another address, or a path leads to a file that is not ours.
    """
    if isinstance(value, list):
        return [_cleaned(key, entry, host, roots) for entry in value]
    if isinstance(value, dict):
        return {_cleaned("", name, host, roots): _cleaned(name, entry, host, roots) for name, entry in value.items()}
    if not isinstance(value, str):
        return value
    if key.lower() == "path":
        if not _is_within(value, roots):
            raise _Refused
    elif _is_address(value):
        if key != "url" or not _is_own_address(value, host, roots):
            raise _Refused
        return None
    return value


def _is_own_address(text: str, host: str, roots: Sequence[str]) -> bool:
    """Return whether this is the address at which this server shows one of our files."""
    found = urlsplit(text)
    path = _decoded(found.path)
    ours = found.scheme in ("http", "https") and found.netloc == host and not found.query and not found.fragment
    return ours and path.startswith("/gradio_api/file=") and _path_is_ours(path, roots)
