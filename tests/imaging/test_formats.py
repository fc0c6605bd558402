"""The table of docs/formats.md, measured: what of a file of each format is there in the output."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from fluxsr.errors import OutputError
from fluxsr.imaging import formats, io
from fluxsr.imaging.picture import Delivery
from fluxsr.imaging.resize import bicubic

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
}
EXTRAS = {".heic": "pillow_heif", ".jxl": "pillow_jxl"}
PROPERTIES = ("16 bit", "grey", "alpha", "ICC", "EXIF", "orientation", "XMP", "IPTC", "dpi", "file times")
ADOBE = bytes(imagecodecs.cms_profile("adobergb"))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
IPTC = b"\x1c\x02\x50\x00\x05Adams"
WIDTH, HEIGHT = 32, 24


def image(mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(0)
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    return Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8).squeeze(), mode)


def exif() -> Image.Exif:
    made = Image.Exif()
    made[0x010F] = "Canon"
    made.get_ifd(0x8769)[0xA002] = WIDTH
    return made


def specimen(path: Path, wanted: str) -> bool:
    """A file with that property; False where there can be none."""
    ending, options = path.suffix, dict[str, Any]()
    if wanted == "16 bit":
        pixels = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
        if ending == ".png":
            path.write_bytes(imagecodecs.png_encode(pixels))
        elif ending == ".tif":
            tifffile.imwrite(path, pixels, photometric="rgb")
        return ending in (".png", ".tif")
    if wanted == "IPTC":
        if ending == ".jpg":
            data = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(IPTC).to_bytes(4, "big") + IPTC
            options["extra"] = b"\xff\xed" + (len(data) + 2).to_bytes(2, "big") + data
        elif ending == ".tif":
            tags = [(33723, 7, len(IPTC), IPTC, True)]
            tifffile.imwrite(path, np.asarray(image()), photometric="rgb", extratags=tags)
            return True
        else:
            return False
    made = exif()
    if wanted == "orientation":
        if ending == ".jxl":
            return False  # EXIF's does not count there, and pillow_jxl writes no other
        made[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    options |= {
        "ICC": {"icc_profile": ADOBE},
        "EXIF": {"exif": made.tobytes()},
        "orientation": {"exif": made.tobytes()},
        "XMP": {".png": {"pnginfo": text}, ".tif": {"tiffinfo": {700: XMP}}}.get(ending, {"xmp": XMP}),
        "dpi": {"dpi": (300, 300)},
    }.get(wanted, {})
    try:
        image({"grey": "L", "alpha": "RGBA"}.get(wanted, "RGB")).save(path, **options)
    except OSError:
        return False
    if wanted == "file times":
        os.utime(path, (1_000_000_000, 1_000_000_000))
    with Image.open(path) as made_image:  # whether it is in the file at all
        made_image.load()
        return holds(made_image, wanted, path) or wanted == "orientation" and made_image.size == (HEIGHT, WIDTH)


def holds(found: Image.Image, wanted: str, path: Path) -> bool:
    """Whether Pillow finds it; its values are looked at, not only that it is there."""
    info = found.info
    if wanted == "orientation":
        return found.getexif().get(0x0112) == 6
    if wanted == "IPTC":
        tags = found.tag_v2.get(33723) if found.format == "TIFF" else info.get("photoshop", {}).get(0x0404)
        return tags == IPTC
    return {
        "grey": lambda: found.mode == "L",
        "alpha": lambda: found.mode in ("RGBA", "LA") or "transparency" in info,
        "ICC": lambda: info.get("icc_profile") == ADOBE,
        "EXIF": lambda: found.getexif().get(0x010F) == "Canon",
        "XMP": lambda: (info.get("xmp") or b"").startswith(XMP),
        "dpi": lambda: tuple(round(float(value)) for value in info.get("dpi", ())) == (300, 300),
        "file times": lambda: path.stat().st_mtime == 1_000_000_000,
    }[wanted]()


def outcome(folder: Path, ending: str, wanted: str) -> str:
    source = folder / f"a{ending}"
    if not specimen(source, wanted):
        return "-"
    picture, target = io.read(source), folder / f"b{formats.following(source)}"
    size = (2 * picture.lr.shape[-2], 2 * picture.lr.shape[-1])
    io.write_enlarged(picture, [bicubic(picture.lr, size)], size, target, Delivery())
    if wanted == "16 bit":
        levels = imagecodecs.png_decode(target.read_bytes()) if ending == ".png" else tifffile.imread(target)
        return "kept" if levels.dtype == np.uint16 and len(np.unique(levels)) > 256 else "8 bit"
    with Image.open(target) as found:
        found.load()
        if wanted == "orientation":
            upright = found.size == (2 * HEIGHT, 2 * WIDTH) and found.getexif().get(0x0112, 1) == 1
            return "applied" if upright else "wrong"
        if wanted == "EXIF" and holds(found, wanted, target):
            return "kept, new size" if found.getexif().get_ifd(0x8769).get(0xA002) == 2 * WIDTH else "wrong"
        if wanted == "dpi" and not holds(found, wanted, target) and found.getexif().get(0x011A) == 300:
            return "as EXIF"
        return (
            "kept" if holds(found, wanted, target) else {"grey": "RGB", "alpha": "over white"}.get(wanted, "left out")
        )


def row(folder: Path, name: str) -> str:
    ending = KINDS[name]
    written = formats.following(Path(f"a{ending}"))
    label = name if written == ending else f"{name}, as {next(k for k, e in KINDS.items() if e == written)}"
    return f"| {label} | " + " | ".join(outcome(folder, ending, wanted) for wanted in PROPERTIES) + " |"


@pytest.mark.parametrize("name", KINDS)
def test_the_table_of_the_documentation_is_true(tmp_path: Path, name: str) -> None:
    if KINDS[name] in EXTRAS:
        module = pytest.importorskip(EXTRAS[KINDS[name]])
        if name == "HEIC":
            module.register_heif_opener()
    measured = row(tmp_path, name)
    assert "wrong" not in measured
    text = PAGE.read_text(encoding="utf-8")
    if os.environ.get("FLUXSR_WRITE_DOCS"):
        head = f"| format | {' | '.join(PROPERTIES)} |\n|{' --- |' * (len(PROPERTIES) + 1)}"
        before, table, after = re.split(r"(?<=<!-- table: kept -->\n)|(?=<!-- end -->)", text)
        rows = [line for line in table.splitlines()[2:] if not re.match(rf"\| {name}[ ,]", line)] + [measured]
        order = list(KINDS)
        rows.sort(key=lambda line: order.index(re.split(r" \||,", line[2:])[0]))
        text = before + "\n".join([head, *rows]) + "\n" + after
        PAGE.write_text(text, encoding="utf-8")
    assert measured in text.splitlines()


def test_every_format_that_is_written_is_read() -> None:
    assert set(formats.ENDINGS) <= set(formats.READABLE)
    assert {form.endings[0] for form in formats.WRITTEN} <= set(KINDS.values())


def test_endings() -> None:
    assert formats.format_of("a.JPEG").name == "JPEG"
    with pytest.raises(OutputError, match=r"a.xyz: cannot write '.xyz' files; use one of .png, "):
        formats.format_of("a.xyz")
