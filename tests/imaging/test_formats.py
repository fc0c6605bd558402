"""The tables of docs/formats.md, measured: what becomes of everything that a file of each format can hold."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import struct
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from fluxsr.errors import InputError, OutputError
from fluxsr.imaging import formats, frames, io
from fluxsr.imaging.resize import bicubic
from fluxsr.options import UpscaleOptions

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
KINDS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "TIFF": ".tif",
    "WebP": ".webp",
    "AVIF": ".avif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "HEIC": ".heic",
    "JPEG XL": ".jxl",
    "JPEG 2000": ".jp2",
    "PPM": ".ppm",
    "TGA": ".tga",
}
WRITTEN = [name for name, ending in KINDS.items() if ending in formats.ENDINGS]
EXTRAS = {".heic": "pillow_heif", ".jxl": "pillow_jxl"}
LOST, SILENT = ("dropped", "8 bit", "over white", "the first"), " in silence"
_made = runpy.run_path(str(Path(__file__).with_name("items.py")))
ITEMS, Result = _made["ITEMS"], _made["Result"]


def readable(ending: str) -> bool:
    """Whether the package of a format that is an extra is there."""
    if ending not in EXTRAS:
        return True
    try:
        module = importlib.import_module(EXTRAS[ending])
    except ImportError:
        return False
    if ending == ".heic":
        module.register_heif_opener()
    return True


def outcome(folder: Path, ending: str, item: str, target_ending: str | None = None) -> str:
    """What becomes of an item of a file when it is written again, in the words of the table."""
    source = folder / f"a{ending}"
    judge = ITEMS[item](source)
    if judge is None:
        return "-"
    try:
        picture = io.read(source)
    except InputError:
        return "refused"
    target = folder / f"b{target_ending or formats.following(source)}"
    size, options, results = (2 * picture.lr.shape[-2], 2 * picture.lr.shape[-1]), UpscaleOptions(), []
    for one in frames.of(picture, formats.format_of(target), options):
        results.append(io.Enlarged(one, [bicubic(one.lr, size)], size))
    notes = [*results[0].picture.notes, *io.write_frames(results, target, options)]
    with Image.open(target) as found:
        found.load()
        words = judge(Result(target, found, notes))
    words = words or "dropped"
    return f"{words}, noted" if notes else f"{words}{SILENT}" if words in LOST else words


def check_row(table: str, head: list[str], name: str, measured: list[str | None]) -> None:
    """Compare a row of a table on the page with what was measured, None where it could not be; or write it there."""
    text = PAGE.read_text(encoding="utf-8")
    start, end = (text.index(mark) for mark in (f"<!-- table: {table} -->", f"<!-- end: {table} -->"))
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", text[start:end], re.MULTILINE))
    old = rows.get(name, "").split(" | ")
    if os.environ.get("FLUXSR_WRITE_DOCS"):
        olds = old if len(old) == len(measured) else ["?"] * len(measured)
        rows[name] = " | ".join(new or before for new, before in zip(measured, olds, strict=True))
        order = [*ORDER[table]]
        body = [f"| {row} | {rows[row]} |" for row in order if row in rows]
        lines = [f"<!-- table: {table} -->", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *body]
        PAGE.write_text(text[:start] + "\n".join(lines) + "\n" + text[end:], encoding="utf-8")
        return
    assert [new or before for new, before in zip(measured, old, strict=True)] == old, (
        f"docs/formats.md is not current; FLUXSR_WRITE_DOCS=1 python -m pytest {Path(__file__).name} writes it anew"
    )


@pytest.mark.parametrize("item", ITEMS)
def test_what_is_kept_in_the_format_of_the_input(tmp_path: Path, item: str) -> None:
    found = [outcome(tmp_path, ending, item) if readable(ending) else None for ending in KINDS.values()]
    assert not [word for word in found if word and (SILENT in word or "wrong" in word)], dict(
        zip(KINDS, found, strict=True)
    )
    labels = [
        name if ending == target else f"{name} (as {_name(target)})"
        for name, ending in KINDS.items()
        for target in [formats.following(Path(f"a{ending}"))]
    ]
    check_row("kept", ["", *labels], item, found)


@pytest.mark.parametrize("item", ITEMS)
def test_what_is_kept_when_a_tiff_becomes_another_format(tmp_path: Path, item: str) -> None:
    found = [outcome(tmp_path, ".tif", item, KINDS[name]) for name in WRITTEN]
    assert not [word for word in found if word and (SILENT in word or "wrong" in word)], dict(
        zip(WRITTEN, found, strict=True)
    )
    if set(found) != {"-"}:
        check_row("changed", ["a TIFF's", *WRITTEN], item, found)


def _name(ending: str) -> str:
    return next(name for name, known in KINDS.items() if known == ending)


def _raw(path: Path) -> None:
    with tifffile.TiffWriter(path) as tiff:
        tags = [(50706, 1, 4, b"\x01\x04\0\0", True)]
        tiff.write(np.zeros((16, 16, 3), np.uint8), photometric="rgb", subifds=1, subfiletype=1, extratags=tags)
        tiff.write(np.zeros((64, 64), np.uint16), photometric=32803)


def _reduced(path: Path) -> None:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((16, 16, 3), np.uint8), photometric="rgb", subfiletype=1, metadata=None)
        tiff.write(np.zeros((64, 64, 3), np.uint8), photometric="rgb", metadata=None)


def _bmp(path: Path) -> None:
    head = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 24, 99, 48, 0, 0, 0, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 102, 0, 0, 54) + head + bytes(48))


def _cut(path: Path) -> None:
    data = bytes(imagecodecs.png_encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    path.write_bytes(data[: len(data) // 2])


def _hdr(path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    path.write_bytes(imagecodecs.avif_encode(pixels, primaries=9, transfer=16, matrix=9))


REFUSED: dict[str, Callable[[Path], object]] = {
    "DNG and other TIFF with sensor data": _raw,
    "raw file of another kind (CR2, CR3, RAF, ORF, RW2 ...)": lambda path: path.write_bytes(b"FUJIFILMCCD-RAW 0201"),
    "TIFF whose first page is a preview": _reduced,
    "HDR (PQ, HLG)": _hdr,
    "floating point outside [0,1]": lambda path: tifffile.imwrite(path, np.full((16, 16), 7, np.float32)),
    "32-bit integers with a sign": lambda path: tifffile.imwrite(path, np.full((16, 16), 7, np.int32)),
    "more pixels than the limit": lambda path: path.write_bytes(b"P6\n12000 12000\n255\n" + bytes(100)),
    "no image (text, PDF, SVG, EPS ...)": lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    "damaged or cut off": _cut,
    "not supported by any decoder": _bmp,
    "empty": lambda path: path.touch(),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_and_in_which_words(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "FILE"
    REFUSED[kind](path)
    with pytest.raises(InputError) as caught:
        io.read(path)
    message = str(caught.value).replace(str(path), "FILE")
    assert "\n" not in message
    check_row("refused", ["found", "what is said"], kind, [message.replace("|", "\\|")])


ORDER: dict[str, list[str]] = {"kept": list(ITEMS), "changed": list(ITEMS), "refused": list(REFUSED)}


@pytest.mark.parametrize("table", ORDER)
def test_the_page_has_no_row_that_is_not_measured(table: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = text[text.index(f"<!-- table: {table} -->") : text.index(f"<!-- end: {table} -->")].splitlines()[3:]
    names = [row[2:].split(" | ")[0] for row in rows]
    assert names == [name for name in ORDER[table] if name in names] and len(names) > 10


def test_every_format_that_is_written_is_read() -> None:
    assert set(formats.ENDINGS) <= set(formats.READABLE)
    assert {form.endings[0] for form in formats.WRITTEN} <= set(KINDS.values())


def test_endings() -> None:
    assert formats.format_of("a.JPEG").name == "JPEG"
    with pytest.raises(OutputError, match=r"a.xyz: cannot write '.xyz' files; use one of .png, "):
        formats.format_of("a.xyz")
