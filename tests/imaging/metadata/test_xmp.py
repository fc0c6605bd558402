"""XMP says of the output what is true of it, and what is lost with the old file is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:d="http://purl.org/dc/elements/1.1/" xmlns:Pano="http://ns.google.com/photos/1.0/panorama/"
 xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"
 xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmlns:Container="http://ns.google.com/photos/1.0/container/"
 xmlns:Item="http://ns.google.com/photos/1.0/container/item/" xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"
 xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
 xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#" %s>%s</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
CONTAINER = (
    "<Container:Directory><rdf:Seq><rdf:li rdf:parseType='Resource'><Container:Item Item:Semantic='Primary' "
    "Item:Mime='image/jpeg'/></rdf:li><rdf:li rdf:parseType='Resource'><Container:Item Item:Semantic='GainMap' "
    "Item:Mime='image/jpeg' Item:Length='4711'/></rdf:li></rdf:Seq></Container:Directory>"
)
REGIONS = (
    "<mwg-rs:Regions rdf:parseType='Resource'><mwg-rs:AppliedToDimensions stDim:w='20' stDim:h='30' "
    "stDim:unit='pixel'/><mwg-rs:RegionList><rdf:Bag><rdf:li rdf:parseType='Resource'><mwg-rs:Area "
    "stArea:x='0.25' stArea:y='0.4' stArea:w='0.1' stArea:h='0.2' stArea:unit='normalized'/></rdf:li></rdf:Bag>"
    "</mwg-rs:RegionList></mwg-rs:Regions>"
)


@pytest.fixture
def outcome(files: Any, tmp_path: Path) -> Any:
    """outcome(attributes, inside="", orientation=1): the packet of the output, and the notes."""

    def made(attributes: str, inside: str = "", orientation: int = 1) -> tuple[str, str]:
        exif = b"Exif\0\0" + files.camera(orientation=orientation)
        source = files.saved(tmp_path, ".jpg", exif=exif, xmp=(XMP % (attributes, inside)).encode())
        target, notes = files.enlarged(source)
        with Image.open(target) as image:
            return image.info["xmp"].decode(), notes

    return made


def test_panoramas_are_scaled_under_any_prefix_and_in_both_forms(outcome: Any) -> None:
    found, notes = outcome(
        "Pano:FullPanoWidthPixels='40' Pano:CroppedAreaLeftPixels='10' Pano:ProjectionType='equirectangular'",
        "<Pano:CroppedAreaImageWidthPixels>20</Pano:CroppedAreaImageWidthPixels>"
        "<Pano:CroppedAreaImageHeightPixels>30</Pano:CroppedAreaImageHeightPixels>",
    )
    assert "FullPanoWidthPixels='120'" in found and "CroppedAreaLeftPixels='30'" in found
    assert "WidthPixels>60<" in found and "HeightPixels>90<" in found and not notes
    assert "Pano:ProjectionType='equirectangular'" in found


def test_a_panorama_that_was_turned_loses_its_position_with_a_note(outcome: Any) -> None:
    found, notes = outcome("Pano:FullPanoWidthPixels='40' d:title='a'", orientation=6)
    assert "FullPano" not in found and "panorama" in notes and "d:title='a'" in found


def test_a_gain_map_goes_with_all_that_describes_it_with_a_note(outcome: Any) -> None:
    found, notes = outcome("hdrgm:Version='1.0' d:title='a é'", CONTAINER)
    assert "hdrgm:Version" not in found and "Container:Directory" not in found and "4711" not in found
    assert "gain map" in notes and "d:title='a é'" in found


@pytest.mark.parametrize(
    "attributes", ["GCamera:MicroVideo='1' GCamera:MicroVideoOffset='99'", "GCamera:MotionPhoto='1'"]
)
def test_the_offset_of_a_video_goes_with_it_with_a_note(outcome: Any, attributes: str) -> None:
    found, notes = outcome(attributes + " GCamera:BurstID='b'")
    assert "Video" not in found and "Motion" not in found and "video" in notes and "GCamera:BurstID='b'" in found


def test_extended_xmp_is_not_promised(outcome: Any) -> None:
    found, notes = outcome("xmpNote:HasExtendedXMP='0123456789ABCDEF0123456789ABCDEF'")
    assert "HasExtendedXMP" not in found and "extended XMP" in notes


@pytest.mark.parametrize(
    ("orientation", "x", "y"), [(1, 0.25, 0.4), (2, 0.75, 0.4), (3, 0.75, 0.6), (6, 0.6, 0.25), (8, 0.4, 0.75)]
)
def test_faces_stay_where_they_are(outcome: Any, orientation: int, x: float, y: float) -> None:
    found, _ = outcome("", REGIONS, orientation)
    width, height = (90, 60) if orientation > 4 else (60, 90)
    assert f"stDim:w='{width}' stDim:h='{height}'" in found
    assert f"stArea:x='{x}' stArea:y='{y}'" in found


def test_what_says_nothing_of_pixels_stays_to_the_byte(files: Any, tmp_path: Path) -> None:
    packet = XMP % ("d:title='&lt;é&gt;'", "<d:creator>  José\n</d:creator><!-- here -->")
    with Image.open(files.enlarged(files.saved(tmp_path, ".jpg", xmp=packet.encode()))[0]) as image:
        assert image.info["xmp"] == packet.encode()


@pytest.mark.parametrize("packet", [b"<x:xmpmeta><a>", b"no XML", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"])
def test_a_damaged_packet_is_left_out_with_a_note(files: Any, tmp_path: Path, packet: bytes) -> None:
    target, notes = files.enlarged(files.saved(tmp_path, ".jpg", xmp=packet))
    with Image.open(target) as image:
        assert "xmp" not in image.info
    assert "XMP" in notes and "damaged" in notes
