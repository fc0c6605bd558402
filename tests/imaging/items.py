"""What a picture's file can hold besides plain pixels: how to make a file with it, how to look for it in a result.

Each function below makes a file of the format that the path's ending names and returns a judge, or None where the
format (or the library that makes our files) has no such thing. The judge looks at the result with another reader and
says what became of it, in the words of docs/formats.md; "" means that it is gone, which a note must say.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

WIDTH, HEIGHT = 32, 24
WITH_EXIF = (".jpg", ".png", ".tif", ".webp", ".avif", ".heic")
ADOBE = bytes(imagecodecs.cms_profile("adobergb"))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
IPTC = b"\x1c\x02\x50\x00\x05Adams"


@dataclass(frozen=True)
class Result:
    """A file that was written of twice the size, open in Pillow, and the notes that came with it."""

    path: Path
    image: Image.Image
    notes: list[str]


Judge = Callable[[Result], str]
Look = Callable[[Image.Image], bool]
ITEMS: dict[str, Callable[[Path], Judge | None]] = {}
"""Name in the table -> function; in the table's order."""


def item(name: str) -> Callable[[Callable[[Path], Judge | None]], Callable[[Path], Judge | None]]:
    """Put a function into the table."""

    def put(function: Callable[[Path], Judge | None]) -> Callable[[Path], Judge | None]:
        ITEMS[name] = function
        return function

    return put


def pixels(channels: int = 3, whole: int = 255) -> np.ndarray:
    dtype = np.uint8 if whole < 256 else np.uint16
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    return np.random.default_rng(0).integers(0, whole + 1, shape, dtype=dtype)


def save(path: Path, image: Image.Image | None = None, **options: Any) -> bool:
    """Whether Pillow, with its plugins, can write that."""
    try:
        (image or Image.fromarray(pixels())).save(path, **options)
    except (OSError, NotImplementedError, ValueError, KeyError):  # whatever the plugins throw
        return False
    return True


def kept(wanted: Look, word: str = "kept", else_word: str = "") -> Judge:
    return lambda result: word if wanted(result.image) else else_word


def saved_item(
    name: str,
    there: Look,
    word: str = "kept",
    else_word: str = "",
    image: Image.Image | None = None,
    endings: tuple[str, ...] = (),
    found: Look | None = None,
    options: Callable[[Path], dict[str, Any]] = lambda path: {},
) -> None:
    """Put something into the table that Pillow writes with options, in every format (of these) that then holds it.

    Args:
        there: whether an open image has it: the file that was made, else it is passed over, and the result.
        found: the same of the result alone.
    """

    @item(name)
    def made(path: Path) -> Judge | None:
        if (endings and path.suffix not in endings) or not save(path, image, **options(path)):
            return None
        with Image.open(path) as opened:  # Pillow passes over options that it does not know
            opened.load()
            if not there(opened):
                return None
        return kept(found or there, word, else_word)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# --- pixels


@item("16 bit")
def sixteen(path: Path) -> Judge | None:
    deep, ending = pixels(whole=65535), path.suffix
    if ending == ".png":
        path.write_bytes(imagecodecs.png_encode(deep))
    elif ending == ".tif":
        tifffile.imwrite(path, deep, photometric="rgb")
    elif ending == ".ppm":
        path.write_bytes(b"P6\n%d %d\n65535\n" % (WIDTH, HEIGHT) + deep.astype(">u2").tobytes())
    elif ending == ".jp2":
        path.write_bytes(imagecodecs.jpeg2k_encode(deep, codecformat="JP2", level=0))
    elif ending == ".jxl":
        path.write_bytes(imagecodecs.jpegxl_encode(deep, lossless=True))
    else:
        return None
    return _depth


@item("10 bit")
def ten(path: Path) -> Judge | None:
    deep = pixels(whole=1023)
    if path.suffix == ".avif":
        path.write_bytes(imagecodecs.avif_encode(deep, level=100, bitspersample=10))
    elif path.suffix == ".jxl":
        path.write_bytes(imagecodecs.jpegxl_encode(deep, lossless=True, bitspersample=10))
    elif path.suffix == ".heic":
        import pillow_heif

        wide = (deep << 6).tobytes()
        pillow_heif.from_bytes(mode="RGB;16", size=(WIDTH, HEIGHT), data=wide).save(path, quality=-1)
    else:
        return None
    return _depth


def _depth(result: Result) -> str:
    data = result.path.read_bytes()
    found = {".png": imagecodecs.png_decode, ".tif": imagecodecs.tiff_decode}.get(result.path.suffix)
    values = np.asarray(result.image) if found is None else found(data)
    return "kept" if values.dtype == np.uint16 and len(np.unique(values)) > 256 else "8 bit"


@item("floating point")
def floating(path: Path) -> Judge | None:
    if path.suffix not in (".tif", ".jxl"):
        return None
    values = pixels(whole=65535).astype(np.float32) / 65535
    if path.suffix == ".tif":
        tifffile.imwrite(path, values, photometric="rgb")
    else:
        path.write_bytes(imagecodecs.jpegxl_encode(values, lossless=True))
    return lambda result: "as 16 bit" if _depth(result) == "kept" else "8 bit"


saved_item("grey", lambda image: image.mode == "L", else_word="as RGB", image=Image.fromarray(pixels(1)))
saved_item(
    "alpha",
    lambda image: image.mode in ("RGBA", "LA") or "transparency" in image.info,
    else_word="over white",
    image=Image.fromarray(pixels(4)),
)
saved_item(
    "CMYK",
    lambda image: image.mode == "CMYK",
    "to sRGB",
    image=Image.fromarray(pixels()).convert("CMYK"),
    found=lambda image: image.mode in ("RGB", "P"),
)
saved_item(
    "several frames",
    lambda image: getattr(image, "n_frames", 1) == 2 and image.format != "HEIF",
    else_word="the first",
    options=lambda path: {"save_all": True, "append_images": [Image.fromarray(pixels()[::-1])]},
)


@item("lossless")
def lossless(path: Path) -> Judge | None:
    if path.suffix != ".webp":
        return None
    save(path, lossless=True)
    return lambda result: "kept" if b"VP8L" in result.path.read_bytes()[:64] else ""


# --- colours


def profile_holds(name: str) -> Look:
    """Look for a name in the ICC profile of an image."""
    return lambda image: name.encode("utf-16-be") in (image.info.get("icc_profile") or b"")


@item("ICC profile")
def icc(path: Path) -> Judge | None:
    def there(image: Image.Image) -> bool:
        return image.info.get("icc_profile") == ADOBE

    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels(), photometric="rgb", iccprofile=ADOBE)
    elif path.suffix == ".jp2":
        jp2(path, b"\2\0\0" + ADOBE)
    elif path.suffix == ".bmp":
        _bmp(path)
    elif path.suffix in (".gif", ".jxl", ".ppm", ".tga") or not save(path, icc_profile=ADOBE):
        return None
    return kept(there, else_word="to sRGB")


@item("ICC, lossy JPEG XL")
def icc_lossy(path: Path) -> Judge | None:
    if path.suffix != ".jxl":
        return None
    made = imagecodecs.jpegxl_encode(pixels(whole=65535), distance=1.0)  # linear light, as with a profile
    path.write_bytes(made)
    return kept(profile_holds("BT.20"), "to BT.2020")


@item("code points (P3)")
def code_points(path: Path) -> Judge | None:
    if not _cicp(path, 12, 13):
        return None
    return kept(profile_holds("Display"))


@item("code points of HDR")
def hdr(path: Path) -> Judge | None:
    return (lambda result: "") if _cicp(path, 9, 16) else None


@item("gamma, primaries")
def gamma(path: Path) -> Judge | None:
    if path.suffix != ".png":
        return None
    data = bytes(imagecodecs.png_encode(pixels()))
    path.write_bytes(data[:33] + chunk(b"gAMA", struct.pack(">I", 55556)) + data[33:])
    return kept(lambda found: found.info.get("gamma") == 0.55556 and bool(found.info.get("icc_profile")))


def exif_with(tag: int, value: Any, main: bool = False) -> dict[str, bytes]:
    """Options for Pillow that write EXIF with one more entry, among the details or in the main directory."""
    made = Image.Exif()
    made[0x010F] = "Canon"
    made.get_ifd(0x8769)[0xA002] = WIDTH
    (made if main else made.get_ifd(0x8769))[tag] = value
    return {"exif": made.tobytes()}


def detail(image: Image.Image, tag: int) -> Any:
    return image.getexif().get_ifd(0x8769).get(tag)


saved_item(
    "Adobe RGB by EXIF",
    lambda image: detail(image, 0xA001) == 2,
    endings=(".jpg", ".png", ".webp"),  # in the other formats a profile or code points are there, and count more
    found=profile_holds("Adobe"),
    options=lambda path: exif_with(0xA001, 2),
)


def _cicp(path: Path, primaries: int, transfer: int) -> bool:
    if path.suffix == ".png":
        data = bytes(imagecodecs.png_encode(pixels()))
        path.write_bytes(data[:33] + chunk(b"cICP", bytes((primaries, transfer, 0, 1))) + data[33:])
    elif path.suffix == ".avif":
        points = {"primaries": primaries, "transfer": transfer, "matrix": 6}
        path.write_bytes(imagecodecs.avif_encode(pixels(), level=100, **points))
    elif path.suffix == ".heic":
        return save(path, save_nclx_profile=True, color_primaries=primaries, transfer_characteristics=transfer)
    elif path.suffix == ".jp2":
        jp2(path, b"\5\0\0" + struct.pack(">HHHB", primaries, transfer, 0, 0x80))
    else:
        return False
    return True


def jp2(path: Path, colours: bytes, image: np.ndarray | None = None) -> None:
    """A JPEG 2000 file with those contents of its colour box."""
    made = bytes(imagecodecs.jpeg2k_encode(pixels() if image is None else image, codecformat="JP2", level=0))
    place, head = made.index(b"colr") - 4, made.index(b"jp2h") - 4
    size, whole = (int.from_bytes(made[k : k + 4], "big") for k in (place, head))
    box = struct.pack(">I4s", 8 + len(colours), b"colr") + colours
    made = made[:place] + box + made[place + size :]
    path.write_bytes(made[:head] + struct.pack(">I", whole + len(box) - size) + made[head + 4 :])


def _bmp(path: Path) -> None:
    """A BMP of version 5 with a profile."""
    data = pixels().tobytes()
    dib = struct.pack("<IiiHHIIiiII", 124, WIDTH, HEIGHT, 1, 24, 0, len(data), 0, 0, 0, 0).ljust(56, b"\0") + b"DEBM"
    dib = dib.ljust(112, b"\0") + struct.pack("<III", 124 + len(data), len(ADOBE), 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 138 + len(data) + len(ADOBE), 0, 0, 138) + dib + data + ADOBE)


# --- metadata


@item("EXIF")
def exif(path: Path) -> Judge | None:
    if not save(path, **exif_with(0x010F, "Canon", main=True)) or path.suffix in (
        ".bmp",
        ".gif",
        ".jp2",
        ".ppm",
        ".tga",
    ):
        return None

    def judge(result: Result) -> str:
        new = detail(result.image, 0xA002) == 2 * WIDTH
        return ("kept, new size" if new else "wrong size") if result.image.getexif().get(0x010F) == "Canon" else ""

    return judge


@item("orientation")
def orientation(path: Path) -> Judge | None:
    if path.suffix not in WITH_EXIF or not save(path, **exif_with(0x0112, 6, main=True)):
        return None  # EXIF's does not count in JPEG XL, and pillow_jxl writes no other
    return lambda result: (
        "applied"
        if result.image.size == (2 * HEIGHT, 2 * WIDTH) and result.image.getexif().get(0x0112, 1) == 1
        else "wrong"
    )


def with_xmp(packet: bytes) -> Callable[[Path], dict[str, Any]]:
    """Options for Pillow that write an XMP packet."""
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", packet.decode())
    special: dict[str, dict[str, Any]] = {".png": {"pnginfo": text}, ".tif": {"tiffinfo": {700: packet}}}
    return lambda path: special.get(path.suffix, {"xmp": packet})


def xmp_holds(words: bytes) -> Look:
    return lambda image: words in (image.info.get("xmp") or b"")


saved_item("XMP", xmp_holds(XMP), options=with_xmp(XMP))


@item("IPTC")
def iptc(path: Path) -> Judge | None:
    def there(found: Image.Image) -> bool:
        tags = found.tag_v2.get(33723) if found.format == "TIFF" else found.info.get("photoshop", {}).get(0x0404)
        return tags == IPTC

    if path.suffix == ".jpg":
        data = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(IPTC).to_bytes(4, "big") + IPTC
        save(path, extra=b"\xff\xed" + (len(data) + 2).to_bytes(2, "big") + data)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels(), photometric="rgb", extratags=[(33723, 7, len(IPTC), IPTC, True)])
    else:
        return None
    return kept(there)


@item("dpi")
def dpi(path: Path) -> Judge | None:
    def there(image: Image.Image) -> bool:
        return tuple(round(float(value)) for value in image.info.get("dpi", ())) == (300, 300)

    if not save(path, dpi=(300, 300)) or path.suffix not in (".jpg", ".png", ".tif", ".bmp"):
        return None
    return lambda result: (
        "kept" if there(result.image) else "in EXIF" if result.image.getexif().get(0x011A) == 300 else ""
    )


@item("file times")
def times(path: Path) -> Judge | None:
    if not save(path):
        return None
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return lambda result: "kept" if result.path.stat().st_mtime == 1_000_000_000 else ""


@item("EXIF interoperability")
def interoperability(path: Path) -> Judge | None:
    if not save(path, **exif_with(0xA005, {1: "R98"})) or b"R98\0" not in path.read_bytes():
        return None
    return lambda result: "kept" if b"R98\0" in result.path.read_bytes() else ""


saved_item(
    "EXIF maker note",
    lambda image: b"private" in bytes(detail(image, 0x927C) or b""),
    options=lambda path: exif_with(0x927C, b"private data of the maker"),
)
saved_item(
    "EXIF dates",
    lambda image: detail(image, 0x9003) == "2001:02:03 04:05:06",
    options=lambda path: exif_with(0x9003, "2001:02:03 04:05:06"),
)


def _described(attributes: str) -> bytes:
    head = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    return head + f"<rdf:Description {attributes}/></rdf:RDF></x:xmpmeta>".encode()


PANORAMA = 'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" GPano:FullPanoWidthPixels='
saved_item(
    "XMP panorama (GPano)",
    xmp_holds(b"FullPanoWidthPixels"),
    "kept, scaled",
    found=xmp_holds(f'FullPanoWidthPixels="{2 * WIDTH}"'.encode()),
    options=with_xmp(_described(f'{PANORAMA}"{WIDTH}"')),
)
saved_item(
    "gain map",
    xmp_holds(b"hdrgm:Version"),
    "wrong",
    options=with_xmp(_described('xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"')),
)


@item("motion video")
def motion_video(path: Path) -> Judge | None:
    if path.suffix != ".jpg" or not save(path):
        return None
    path.write_bytes(path.read_bytes() + b"\0\0\0\x18ftypmp42" + bytes(100))
    return lambda result: "wrong" if b"ftypmp42" in result.path.read_bytes() else ""


@item("Photoshop resources")
def photoshop_resources(path: Path) -> Judge | None:
    resource = b"8BIM\x03\xf3\0\0" + (4).to_bytes(4, "big") + b"flag"  # print flags
    if path.suffix == ".jpg":
        data = b"Photoshop 3.0\0" + resource
        save(path, extra=b"\xff\xed" + (len(data) + 2).to_bytes(2, "big") + data)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels(), photometric="rgb", extratags=[(34377, 1, len(resource), resource, True)])
    else:
        return None
    return lambda result: "kept" if resource in result.path.read_bytes() else ""


def comment_of(image: Image.Image) -> bytes:
    text = image.info.get("Comment") or image.info.get("comment") or b""
    return text.encode() if isinstance(text, str) else text


def png_text() -> dict[str, Any]:
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "by hand")
    return {"pnginfo": text}


saved_item(
    "comment",
    lambda image: comment_of(image) == b"by hand",
    endings=(".jpg", ".gif"),
    options=lambda path: {"comment": b"by hand"},
)
saved_item(
    "PNG text chunks",
    lambda image: image.info.get("Software") == "by hand",
    endings=(".png",),
    options=lambda path: png_text(),
)


@item("GeoTIFF position")
def geotiff_position(path: Path) -> Judge | None:
    if path.suffix != ".tif":
        return None
    tags = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 5.0, 6.0, 0.0), True)]
    tifffile.imwrite(path, pixels(), photometric="rgb", extratags=tags)

    def judge(result: Result) -> str:
        if result.path.suffix != ".tif":
            return ""
        with tifffile.TiffFile(result.path) as found:
            scale = found.pages.first.tags.valueof(33550)
        return "kept, scaled" if scale is not None and tuple(scale) == (5.0, 5.0, 0.0) else "wrong"

    return judge
