"""Adapt XMP to an upscaled image. All bytes are kept, except what describes the old pixels or the old file."""

from __future__ import annotations

import re

from fluxsr.imaging.metadata.xml_text import Item, parsed, replaced
from fluxsr.imaging.raster import Change

NAMESPACES = {
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#": "rdf",
    "urn:fluxsr:1.0/": "fluxsr",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/xmp/note/": "xmpNote",
    "http://ns.adobe.com/hdr-gain-map/": "hdrgm",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/xmp/sType/Area#": "stArea",
    "http://ns.google.com/photos/1.0/panorama/": "GPano",
    "http://ns.google.com/photos/1.0/camera/": "GCamera",
    "http://ns.google.com/photos/1.0/container/item/": "Item",
    "http://ns.google.com/photos/1.0/container/": "Container",
    "http://ns.google.com/photos/1.0/depthmap/": "GDepth",
    "http://ns.google.com/photos/1.0/image/": "GImage",
    "http://ns.google.com/photos/1.0/audio/": "GAudio",
    "http://ns.google.com/photos/dd/": "dd",
    "http://ns.apple.com/HDRGainMap/": "HDRGainMap",
    "http://www.metadataworkinggroup.com/schemas/regions/": "mwg-rs",
    "http://ns.adobe.com/xap/1.0/sType/Dimensions#": "stDim",
    "http://ns.microsoft.com/photo/1.2/": "MP",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
}
_PREFIXES = dict(sorted(NAMESPACES.items(), key=lambda pair: -len(pair[0])))  # longest first

GAIN_MAP, VIDEO, DEPTH = "gain map (HDR)", "embedded video", "depth map"
SOUND, IMAGE, EXTENDED = "recorded sound", "second image", "extended XMP"
_POSITION, _REGIONS = "position in the panorama", "marked regions"
# Properties that do not hold for an output, and what is lost with them; "" if the file states it elsewhere.
_GONE = (
    (r"hdrgm:.*|HDRGainMap:.*", GAIN_MAP),
    (r"GCamera:(MicroVideo|MotionPhoto).*", VIDEO),
    (r"GDepth:.*|dd:.*", DEPTH),
    (r"GAudio:.*", SOUND),
    (r"GImage:.*", IMAGE),
    (r"xmpNote:HasExtendedXMP", EXTENDED),
    (r"Container:Directory|xmp:Thumbnails|exif:(Subject(Area|Location)|FocalPlane[XY]Resolution)", ""),
    (r"tiff:(BitsPerSample|Compression|PhotometricInterpretation|SamplesPerPixel|PlanarConfiguration|YCbCr.*)", ""),
)
_GONE_WHEN_TURNED = ((r"GPano:.*", _POSITION), (r"MP:RegionInfo|Iptc4xmpExt:ImageRegion", _REGIONS))
_MEANT = {b"GainMap": GAIN_MAP, b"MotionPhoto": VIDEO, b"Depth": DEPTH, b"DepthMap": DEPTH}  # Item:Semantic
_ACROSS = re.compile(r"(tiff:ImageWidth|exif:PixelXDimension)|GPano:(Cropped|Full|LargestValid)\w*(Width|Left)\w*")
_DOWN = re.compile(r"(tiff:ImageLength|exif:PixelYDimension)|GPano:(Cropped|Full|LargestValid)\w*(Height|Top)\w*")


def items_in(packet: bytes) -> list[Item]:
    """Return the attributes and elements of a packet, named with the usual prefixes; see ``xml_text.parsed``."""
    return parsed(packet, _PREFIXES)


def adapted(data: bytes, change: Change, mime: str) -> tuple[bytes, list[str]]:
    """Return the XMP of the output, and the names of what is lost. A packet that cannot be parsed is dropped.

    ``mime`` is the media type of the output, such as "image/png".
    """
    data = _utf8(data)
    try:
        items = items_in(data)
    except (ValueError, UnicodeDecodeError):
        return b"", ["damaged XMP"] if data.strip() else []
    edits, lost = _removals(data, items, change)
    edits += _new_values(data, items, change, mime) + _regions(data, items, change)
    result = replaced(data, edits)
    return (result if b"<" in result else b""), lost


def _removals(data: bytes, items: list[Item], change: Change) -> tuple[list[tuple[int, int, bytes]], list[str]]:
    rules = [*_GONE, *(_GONE_WHEN_TURNED if change.turned else ())]
    rules += [(r"(?i:[\w-]+:GPS).*", "")] if change.drop_location else []
    rules += [("photoshop:ICCProfile", "")] if change.to_srgb else []
    edits, lost = list[tuple[int, int, bytes]](), list[str]()
    for item in items:
        value = data[slice(*item.inside)]
        if item.name == "Item:Semantic" and value in _MEANT:
            lost.append(_MEANT[value])
        pixels = item.name == "Iptc4xmpExt:ImageRegion" and b"pixel" in value
        what = next((what for names, what in rules if re.fullmatch(names, item.name)), _REGIONS if pixels else None)
        if what is not None:
            edits.append((item.start, item.stop, b""))
            lost += [what] if what and value.strip() not in (b"0", b"") else []
    return edits, list(dict.fromkeys(lost))


def _new_values(data: bytes, items: list[Item], change: Change, mime: str) -> list[tuple[int, int, bytes]]:
    edits = list[tuple[int, int, bytes]]()
    for item in items:
        if not item.leaf:
            continue
        new, value = None, data[slice(*item.inside)]
        for axis, names in enumerate((_ACROSS, _DOWN)):
            found = names.fullmatch(item.name)
            if found and found[1]:
                new = str(change.new[axis])
            elif found:
                new = _scaled(value, change.factors[axis])
        if item.name == "tiff:Orientation":
            new = "1"
        elif item.name == "dc:format" and value.startswith(b"image/"):
            new = mime
        elif item.name == "exif:ColorSpace" and change.to_srgb:
            new = "1"
        if new is not None and value.strip():
            edits.append((*item.inside, new.encode()))
    return edits


def _regions(data: bytes, items: list[Item], change: Change) -> list[tuple[int, int, bytes]]:
    """Return edits of marked regions (such as faces), and of the image size that they refer to."""
    groups = dict[int, dict[str, Item]]()
    for item in items:
        holders = [
            number for number in item.around if items[number].name in ("mwg-rs:Area", "mwg-rs:AppliedToDimensions")
        ]
        if holders and item.leaf and item.name.startswith(("stArea:", "stDim:")):
            groups.setdefault(holders[-1], {})[item.name.partition(":")[2]] = item
    edits = list[tuple[int, int, bytes]]()
    for number, group in groups.items():
        area, names = items[number].name == "mwg-rs:Area", ("x", "y", "w", "h")
        try:
            values = {
                name: float(data[slice(*group[name].inside)])
                for name in (names if area else names[2:])
                if name in group
            }
        except ValueError:
            continue
        new = _moved(values, change) if area else _resized(values, change)
        edits += [(*group[name].inside, text.encode()) for name, text in new.items() if name in group]
    return edits


def _moved(values: dict[str, float], change: Change) -> dict[str, str]:
    if not change.turned or not {"x", "y"} <= set(values):
        return {}
    x, y = change.point(values["x"], values["y"], 1, 1)
    extent = {"w": "h", "h": "w"} if change.sideways else {}
    sizes = {extent.get(name, name): values[name] for name in ("w", "h") if name in values}
    return {name: f"{value:.6g}" for name, value in {"x": x, "y": y, **sizes}.items()}


def _resized(values: dict[str, float], change: Change) -> dict[str, str]:
    if set(values) != {"w", "h"}:
        return {}
    across, down = (values["h"], values["w"]) if change.sideways else (values["w"], values["h"])
    return {"w": str(round(across * change.factors[0])), "h": str(round(down * change.factors[1]))}


def _scaled(value: bytes, factor: float) -> str | None:
    try:
        return str(round(float(value) * factor))
    except (ValueError, OverflowError):
        return None


def _utf8(data: bytes) -> bytes:
    """Return a packet as UTF-8, without trailing zeros."""
    for mark, code in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be")):
        if data.startswith(mark):
            return data.decode(code, errors="replace").encode()
    return data.rstrip(b"\0")
