"""Only requests of our page for our files reach gradio, and no address does, wherever in a request it stands."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote
from urllib.request import Request, urlopen

import pytest

from fluxsr.serving.web_guard import guarded

HOST = "127.0.0.1:7860"
META = {"_type": "gradio.FileData"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.jpg").touch()
    (tmp_path / "secret").touch()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    return tmp_path / "root"


def without_urls(value: Any, key: str = "") -> Any:
    if isinstance(value, list):
        return [without_urls(entry, key) for entry in value]
    if isinstance(value, dict):
        return {name: without_urls(entry, name) for name, entry in value.items()}
    return None if key == "url" else value


def passes(
    root: Path,
    path: str,
    body: Any = None,
    *,
    origin: str = "",
    host: str = HOST,
    local: bool = False,
    chunk: int = 1 << 20,
) -> bool:
    """Return whether a request reaches the application unchanged; the path is given as the client sends it."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    parts = [data[first : first + chunk] for first in range(0, len(data), chunk)] or [b""]
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]
    headers = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin else [])]
    scope = {"type": "http", "method": "GET" if body is None else "POST", "path": unquote(path), "headers": headers}
    got, statuses = [], []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            got.append(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200})

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            assert any(name == b"content-security-policy" for name, _ in message["headers"])

    with ThreadPoolExecutor(1) as thread:  # in this one, a browser's event loop may be running
        thread.submit(asyncio.run, guarded(app, [root], local)(scope, receive, send)).result()
    assert statuses == ([200] if got else [403])
    if got and b"http" in data and data.startswith((b"{", b"[")):
        assert json.loads(b"".join(got)) == without_urls(json.loads(data)), "no address reaches gradio"
    elif got:
        assert b"".join(got) == data
    return bool(got)


ADDRESSES = [
    "http://127.0.0.1:1/x.png",
    "HTTP://127.0.0.1:1/x.png",
    "hTTpS://example.org/x.png",
    "  http://example.org/x.png",
    "\thttp://example.org/x.png",
    "http:/example.org/x.png",
    "http:\\\\example.org\\x.png",
    "//example.org/x.png",
    "\\\\example.org\\share\\x.png",
    "ftp://example.org/x",
    "file:///etc/passwd",
    "gopher://example.org/x",
    "s3://bucket/x.png",
    "http%3A%2F%2Fexample.org/x.png",
    "http%253A%252F%252Fexample.org/x.png",
    f"http://{HOST}@example.org/gradio_api/file=/x.png",
    f"http://{HOST}.example.org/gradio_api/file=/x.png",
    f"http://{HOST}/gradio_api/file=http://example.org/x.png",
    f"http://{HOST}/gradio_api/proxy=http://example.org/x.png",
    f"http://{HOST}/redirect",
    f"http://{HOST}/latest/meta-data/;/file=/x.png",
    f"http://{HOST}/gradio_api/file=/x.png?next=1",
    "ht\ttp://example.org/x.png",
    "h\nttp://example.org/x.png",
    "\x00http://example.org/x.png",
]


@pytest.mark.parametrize(
    ("address", "key"),
    [(address, key) for address in ADDRESSES for key in ("path", "url")]
    + [(ADDRESSES[0], key) for key in ("Path", "URL", "name", "anything")],
)
def test_no_address_is_taken_wherever_it_stands(root: Path, address: str, key: str) -> None:
    file = {"path": str(root / "a.jpg"), "meta": META, key: address}
    for data in (
        [file],
        [[file]],
        [{"files": [{"deep": file}]}],
        [address],
        [{address: 1}],
        [{"image": file, "caption": None}],
    ):
        assert not passes(root, "/gradio_api/queue/join", {"data": data, "fn_index": 0})
        assert not passes(root, "/gradio_api/run/one", {"data": data}, chunk=7)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_of_json_are_read_or_refused(root: Path, encoding: str) -> None:
    body = json.dumps({"data": [{"path": "http://example.org/x", "meta": META}]}).encode(encoding)
    assert not passes(root, "/gradio_api/queue/join", body)


def test_escapes_repeated_keys_depth_and_length_hide_nothing(root: Path) -> None:
    own = json.dumps(str(root / "a.jpg")).encode()
    for body in (
        b'{"data": [{"path": "\\u0068ttp:\\/\\/example.org/x"}]}',
        b'{"data": [{"path": ' + own + b', "path": "http://example.org/x"}]}',
        b'{"data": [{"p\\u0061th": "http://example.org/x"}]}',
        b"path=http://example.org/x",
        b"[" * 100_000,
        b'{"a": "' + b"x" * 2_000_000 + b'", "path": "http://example.org"}',
    ):
        assert not passes(root, "/gradio_api/queue/join", body)


@pytest.mark.parametrize("path", ["/etc/passwd", "{root}/../secret", "{root}/link", "a.jpg", "", "{root}\0", "{root}x"])
def test_no_other_file_is_taken_or_shown(root: Path, path: str) -> None:
    path = path.format(root=root)
    assert not passes(root, "/gradio_api/queue/join", {"data": [{"path": path, "meta": META}]})
    assert not passes(root, f"/gradio_api/file={quote(path)}")
    assert not passes(root, f"/gradio_api/file={quote(quote(path))}")


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_is_fetched_for_its_path(root: Path, address: str) -> None:
    for route in ("file=", "FILE=", "proxy=", "Proxy=", "file/", "%66ile=", "file%3D", "x/file="):
        assert not passes(root, f"/gradio_api/{route}{address}")
        assert not passes(root, f"/{route}{quote(address, safe='')}")
    assert not passes(root, f"/gradio_api/file={root}/a.jpg/file={address}")


def test_the_page_s_own_requests_pass(root: Path) -> None:
    path = str(root / "a.jpg")
    file = {
        "path": path,
        "url": f"http://{HOST}/gradio_api/file={path}",
        "orig_name": "a: b/c.jpg",
        "size": 3,
        "mime_type": "image/jpeg",
        "meta": META,
    }
    chosen = ["tiny", 4, None, "wavelet", "", "none"]
    body = {"data": [file, *chosen], "fn_index": 3, "session_hash": "abc", "event_data": None, "trigger_id": 7}
    assert passes(root, "/gradio_api/queue/join", body, origin=f"http://{HOST}", chunk=10)
    assert passes(root, "/gradio_api/queue/join", {"data": [[file, file]]})
    for where in ("/", "/config", f"/gradio_api/file={path}", "/assets/index.js", "/gradio_api/queue/data"):
        assert passes(root, where), where
    assert passes(root, "/gradio_api/upload", b"--x\r\nhttp://example.org\r\n--x--")  # a file's bytes are its own
    assert passes(root, "/gradio_api/reset", b"")


def test_other_pages_cannot_use_it(root: Path) -> None:
    for origin in ("http://example.org", f"http://{HOST}.example.org", "null"):
        assert not passes(root, "/gradio_api/queue/join", {"data": []}, origin=origin)


def test_gradio_is_behind_the_guard(site: Any) -> None:
    body = json.dumps({"data": [{"path": "http://127.0.0.1:1/x.png", "meta": META}], "fn_index": 0}).encode()
    for path, data, headers in (
        ("queue/join", body, {"Content-Type": "application/json"}),
        ("queue/join", body.replace(b"http", b"HTTP"), {"Content-Type": "application/json"}),
        ("upload", b"x", {"Origin": "http://elsewhere.example"}),
        ("file=http://127.0.0.1/", None, {}),
        ("file=https:/example.org/x", None, {}),
        ("file=/etc/passwd", None, {}),
    ):
        with pytest.raises(HTTPError) as caught:
            urlopen(Request(f"{site.url}gradio_api/{path}", data, headers))
        assert caught.value.code == 403


def test_the_address_of_an_own_file_is_not_handed_on_whatever_host_the_client_claims(root: Path) -> None:
    file = {"path": str(root / "a.jpg"), "meta": META}
    for host in (HOST, "169.254.169.254"):
        own = f"http://{host}/gradio_api/file={root}/a.jpg"
        for url in (own, [own], [[own]]):
            body = {"data": [{**file, "url": url}]}
            assert passes(root, "/gradio_api/queue/join", body, host=host)  # it checks what arrives
    for address in (f"http://{HOST}/latest/;/file={root}/a.jpg", f"http://{HOST}/gradio_api/file={root}/a.jpg#x"):
        assert not passes(root, "/gradio_api/queue/join", {"data": [{**file, "url": address}]})


def test_served_to_this_machine_alone_another_host_name_is_refused(root: Path) -> None:
    for host in ("127.0.0.1:7860", "localhost:7860", "[::1]:7860"):
        assert passes(root, "/", host=host, local=True)
    for host in ("evil.example:7860", "169.254.169.254", "127.0.0.1.evil.example", ""):
        assert not passes(root, "/", host=host, local=True)
    assert passes(root, "/", host="evil.example:7860")
