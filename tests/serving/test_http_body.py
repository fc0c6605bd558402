"""Bodies that are broken, too large, too slow or incomplete, sent to a real server by httpx or over sockets."""

from __future__ import annotations

import base64
import io
import json
import select
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from fluxsr.options import UpscaleOptions
from fluxsr.serving.errors import ServiceError
from fluxsr.serving.http_body import parse_options
from fluxsr.serving.limits import HttpLimits

KEY = "correct horse battery staple"
HEAD = f"POST /v1/upscale HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
FORM = "multipart/form-data; boundary=B"
OPEN = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


def form(image: bytes, *fields: tuple[str, str]) -> bytes:
    texts = [f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields]
    return OPEN + image + b"\r\n" + "".join(texts).encode() + b"--B--\r\n"


def bomb(side: int) -> bytes:
    """Return the beginning of a PNG whose header tells of many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 100_000) + b"IDAT" + bytes(100)


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        ("text/plain", b"hello", 415, "unsupported_body"),
        ("", b"hello", 415, "unsupported_body"),
        ("multipart/form-data", b"--B--", 400, "malformed"),
        ("multipart/form-data; boundary=", b"--B--", 400, "malformed"),
        (FORM, b"no boundary", 400, "malformed"),
        (FORM, OPEN + b"half of it", 400, "malformed"),
        (FORM, b"--B\r\nContent-Type: text/plain\r\n\r\nx\r\n--B--\r\n", 400, "malformed"),
        (FORM, form(b"x", ("scale", "2"), ("scale", "3")), 400, "malformed"),
        (FORM, form(b"x", *(("scale", "2"),) * 1000), 400, "malformed"),
        (FORM, OPEN + b"x\r\n" + form(b"x"), 400, "malformed"),
        (FORM, form(b"x").removesuffix(b"--B--\r\n"), 400, "malformed"),
        (FORM, b"--B\r\n" + b"a: b\r\n" * 20_000, 400, "malformed"),
        (FORM, b"--B\r\nname: " + b"x" * 100_000, 400, "malformed"),
        (FORM, b"--B--\r\n", 422, "invalid_option"),
        (FORM, form(b""), 422, "invalid_option"),
        (FORM, form(b"x", ("scale", "x" * 70_000)), 413, "body_too_large"),
        (FORM, form(b"x", ("scale", "nan")), 422, "invalid_option"),
        (FORM, form(b"x", ("url", "http://127.0.0.1/")), 422, "invalid_option"),
        ("application/json", b"{", 400, "malformed"),
        ("application/json", b"\xff\xfe", 400, "malformed"),
        ("application/json", b"[" * 100_000, 400, "malformed"),
        ("application/json", b'{"scale": [' + b"[]," * 1000 + b'0], "image": "AAAA"}', 400, "malformed"),
        ("application/json", b'{"a": 0' + b', "b": 0' * 1000 + b"}", 400, "malformed"),
        ("application/json", b"[]", 400, "malformed"),
        ("application/json", b"{}", 422, "invalid_option"),
        ("application/json", b'{"image": "http://127.0.0.1/a.png"}', 422, "invalid_option"),
        ("application/json", b'{"image": "\xc3\xa4"}', 422, "invalid_option"),
        ("application/json", b'{"image": "AAAA", "scale": NaN}', 422, "invalid_option"),
        ("application/json", b'{"image": ""}', 422, "invalid_option"),
        (
            "application/json",
            json.dumps({"image": base64.b64encode(bytes(210_000)).decode()}).encode(),
            413,
            "body_too_large",
        ),
        (FORM, form(bytes(210_000)), 413, "body_too_large"),
        (FORM, form(bomb(600)), 413, "too_many_pixels"),
        (FORM, form(bomb(40_000)), 413, "too_many_pixels"),
        ("image/png", bomb(40_000), 413, "too_many_pixels"),
        ("image/png", bytes(210_000), 413, "body_too_large"),
        ("image/png", b"", 422, "invalid_option"),
        ("image/png", b"not an image", 422, "unusable_input"),
        (FORM, form(b"\xff\x0a\xfe\xe1\x04\x00\x02" + bytes(20)), 413, "too_many_pixels"),  # JPEG XL, 40000x40000
    ],
)
def test_each_is_answered_with_one_line_of_json(
    client: httpx.Client, kind: str, body: bytes, status: int, code: str
) -> None:
    answer = client.post("/v1/upscale", content=body, headers={"Content-Type": kind} if kind else {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    message = answer.json()["error"]["message"]
    assert set(answer.json()) == {"error"} and message and "\n" not in message and "Traceback" not in message


def test_a_result_that_would_be_too_large_is_refused_before_the_work(
    client: httpx.Client, picture: Callable[..., bytes]
) -> None:
    answer = client.post("/v1/upscale", files={"image": picture(400, 400, "JPEG", quality=10)}, data={"scale": "8"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_pixels")
    assert "3200x3200 pixels; the limit is 6000000" in answer.json()["error"]["message"]


@pytest.fixture
def wire(server: Any) -> Iterator[socket.socket]:
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=60) as wire:
        yield wire


def answer_of(wire: socket.socket) -> str:
    """Return what arrives until the server closes or the JSON is complete."""
    data = b""
    while not data.endswith(b"}}") and (more := wire.recv(65536)):
        data += more
    return data.decode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


def test_an_endless_body_is_answered_at_the_limit(wire: socket.socket) -> None:
    """While it is still arriving."""
    wire.sendall(f"{HEAD}Content-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunk(OPEN))
    sent = 0
    while not select.select([wire], [], [], 0.005)[0]:
        wire.sendall(chunk(bytes(10_000)))
        sent += 10_000
        assert sent < 20_000_000
    assert "413" in answer_of(wire).splitlines()[0]


def test_pixels_are_counted_before_the_body_is_complete(wire: socket.socket) -> None:
    """The header of a bomb, from a client that then sends nothing more."""
    wire.sendall(f"{HEAD}Content-Type: {FORM}\r\nContent-Length: 150000\r\n\r\n".encode())
    wire.sendall(OPEN + bomb(600) + bytes(2000))
    answer = answer_of(wire)
    assert "413" in answer.splitlines()[0] and "600x600 pixels; the limit is 250000" in answer


def test_a_slow_body_is_refused(wire: socket.socket) -> None:
    wire.sendall(f"{HEAD}Content-Type: {FORM}\r\nContent-Length: 150000\r\n\r\n".encode() + OPEN)
    answer = answer_of(wire)
    assert "408" in answer.splitlines()[0] and "did not arrive within 2 s" in answer


def test_a_client_that_asks_before_it_sends_is_refused_at_once(wire: socket.socket) -> None:
    wire.sendall(f"{HEAD}Content-Type: {FORM}\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n".encode())
    assert "413" in answer_of(wire).splitlines()[0]


def test_a_client_that_leaves_while_sending_gives_its_place_back(
    wire: socket.socket, client: httpx.Client, until: Callable[..., Any], metric: Callable[..., float]
) -> None:
    wire.sendall(f"{HEAD}Content-Type: {FORM}\r\nContent-Length: 150000\r\n\r\n".encode() + OPEN + bytes(1000))
    until(lambda: metric(client, 'fluxsr_jobs{state="receiving"}') == 1)
    wire.close()
    until(lambda: metric(client, 'fluxsr_jobs{state="receiving"}') == 0)


def test_a_client_that_leaves_while_waiting_cancels_its_job(
    wire: socket.socket,
    client: httpx.Client,
    picture: Callable[..., bytes],
    until: Callable[..., Any],
    metric: Callable[..., float],
) -> None:
    body = form(picture(200, 200), ("scale", "8"), ("tile_size", "64"), ("tile_overlap", "32"))
    cancelled = 'fluxsr_jobs_worked_total{state="cancelled"}'
    before, records = metric(client, cancelled), metric(client, 'fluxsr_jobs{state="cancelled"}')
    wire.sendall(f"{HEAD}Content-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    until(lambda: metric(client, 'fluxsr_jobs{state="running"}') == 1)
    wire.close()
    until(lambda: metric(client, cancelled) == before + 1)
    until(lambda: metric(client, 'fluxsr_jobs{state="cancelled"}') == records)


def test_no_decoder_starts_a_program(client: httpx.Client) -> None:
    """Pillow would start a program for EPS, so it is not among the decoders."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n" + bytes(100)
    answer = client.post("/v1/upscale", files={"image": io.BytesIO(eps)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "unusable_input")


def test_a_form_has_text_where_json_has_values() -> None:
    found = parse_options({"scale": "2", "lossless": "true"}, HttpLimits(), text=True)
    assert found == parse_options({"scale": 2.0, "lossless": True}, HttpLimits(), text=False)
    assert found == UpscaleOptions(scale=2, lossless=True)
    with pytest.raises(ServiceError, match="lossless"):
        parse_options({"lossless": "true"}, HttpLimits(), text=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": 9}, "scale is 9; choose a number from 1 to 8"),
        ({"url": "http://169.254.169.254/"}, "url is not an option; the options are scale, "),
        ({"x" * 9999 + "\n": 1}, "xxxx[x.]+xxx.* is not an option"),
        ({"suffix": "_x4"}, "suffix is not an option"),
        ({"max_pixels": 10**9}, "max_pixels is not an option"),
        ({"tile_size": 64, "tile_overlap": 40}, "tile_overlap is 40, more than half of tile_size 64"),
        ({"tile_size": 2048}, "tile_size is 2048; this server takes up to 1024"),
    ],
)
def test_a_bad_option_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ServiceError, match="^" + message) as caught:
        parse_options(values, HttpLimits(), text=False)
    assert caught.value.status == 422 and "\n" not in caught.value.message and len(caught.value.message) < 300
