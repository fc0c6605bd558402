"""An output says what made it, and still says everything that the photograph said."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from fluxsr.imaging import io
from fluxsr.imaging.metadata.provenance import SOURCE_TYPE
from fluxsr.imaging.metadata.xmp import items_in

MADE = {"Model": "owner/a & b", "Adapter": "none", "Scale": "3", "Strength": "0.8", "Version": "9.9"}
OURS = {f"fluxsr:{name}": value for name, value in MADE.items()}
THEIRS = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<r:Description r:about="uuid:1" xmlns:xap="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xap:CreatorTool="Camera 1">
<dc:title>%s</dc:title><Iptc4xmpExt:DigitalSourceType>digitalCapture</Iptc4xmpExt:DigitalSourceType>
</r:Description></r:RDF></x:xmpmeta>"""


def properties(path: Path) -> dict[str, str]:
    """Return the simple properties in the XMP of a file; each occurs once."""
    packet = io.read(path).metadata.xmp
    items = [item for item in items_in(packet) if item.leaf and not item.name.startswith("xmlns")]
    names = [item.name for item in items if item.name.partition(":")[0] in ("fluxsr", "xmp", "Iptc4xmpExt", "dc")]
    assert len(names) == len(set(names))
    return {item.name: packet[slice(*item.inside)].decode().replace("&amp;", "&") for item in items}


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("strip", [False, True])
def test_every_format_with_xmp_says_it(files: Any, tmp_path: Path, ending: str, strip: bool) -> None:
    target, _ = files.enlarged(files.saved(tmp_path, ".jpg"), ending, MADE, strip_metadata=strip)
    found = properties(target)
    assert found.items() >= OURS.items()
    assert (found["xmp:CreatorTool"], found["Iptc4xmpExt:DigitalSourceType"]) == ("fluxsr 9.9", SOURCE_TYPE)


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
@pytest.mark.parametrize("xmp", [b"", (THEIRS % "a").encode()])
def test_exiftool_reads_it(files: Any, tmp_path: Path, xmp: bytes) -> None:
    paths = [
        files.enlarged(files.saved(tmp_path, ".jpg", xmp=xmp), ending, MADE)[0]
        for ending in (".png", ".jpg", ".webp", ".tif", ".avif")
    ]
    run = subprocess.run(["exiftool", "-j", "-G1", "-a", *paths], capture_output=True, text=True, check=True)
    for found in json.loads(run.stdout):
        assert not [key for key in found if key.endswith((":Warning", ":Error"))]
        assert found["XMP-fluxsr:Model"] == MADE["Model"] and found["XMP-fluxsr:Scale"] == 3
        tool, kind = found["XMP-xmp:CreatorTool"], found["XMP-iptcExt:DigitalSourceType"]
        assert (tool, kind.split("/")[-1]) == (
            ("Camera 1", "digitalCapture") if xmp else ("fluxsr 9.9", SOURCE_TYPE.split("/")[-1])
        )


def test_what_the_photograph_said_stays(files: Any, tmp_path: Path) -> None:
    source = files.saved(tmp_path, ".jpg", xmp=(THEIRS % "title").encode())
    found = properties(files.enlarged(source, ".png", MADE)[0])
    said = {"xmp:CreatorTool": "Camera 1", "Iptc4xmpExt:DigitalSourceType": "digitalCapture", "dc:title": "title"}
    assert found.items() >= {**said, **OURS}.items()
    assert items_in(io.read(tmp_path / "out.png").metadata.xmp)  # well-formed


def test_a_second_run_replaces_only_our_own_properties(files: Any, tmp_path: Path) -> None:
    first = files.enlarged(files.saved(tmp_path, ".jpg"), ".png", MADE)[0].rename(tmp_path / "first.png")
    found = properties(files.enlarged(first, ".jpg", {**MADE, "Scale": "2", "Version": "10"})[0])
    assert (found["fluxsr:Scale"], found["fluxsr:Version"], found["xmp:CreatorTool"]) == ("2", "10", "fluxsr 9.9")


def test_a_png_says_it_in_text_and_keeps_its_own(files: Any, tmp_path: Path) -> None:
    target, _ = files.enlarged(files.saved(tmp_path, ".jpg"), ".png", MADE)
    assert Image.open(target).text.items() >= {"Software": "fluxsr 9.9"}.items()
    assert "Model: owner/a & b; Adapter: none; Scale: 3" in Image.open(target).text["fluxsr"]
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Software", "Editor")
    found = Image.open(files.enlarged(files.saved(tmp_path, ".png", pnginfo=texts), ".png", MADE)[0]).text
    assert found["Software"] == "Editor" and "Scale: 3" in found["fluxsr"]


def test_pixels_do_not_depend_on_it_and_no_provenance_leaves_it_out(files: Any, tmp_path: Path) -> None:
    source = files.saved(tmp_path, ".jpg")
    files.enlarged(source, ".png", MADE)[0].rename(tmp_path / "marked.png")
    plain, _ = files.enlarged(source, ".png", MADE, provenance=False)
    assert b"fluxsr" not in plain.read_bytes()
    assert Image.open(plain).tobytes() == Image.open(tmp_path / "marked.png").tobytes()


def test_the_photograph_s_xmp_comes_first_where_a_jpeg_has_no_room(files: Any, tmp_path: Path) -> None:
    packet = (THEIRS % ("x" * (65_400 - len(THEIRS)))).encode()
    target, notes = files.enlarged(files.saved(tmp_path, ".jpg", xmp=packet), ".jpg", MADE)
    assert "no room in a JPEG to say what made the output" in notes
    assert "fluxsr:Model" not in properties(target) and properties(target)["dc:title"].startswith("xxx")
