"""What is said of a picture is true of the enlarged one, and what shall go is gone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import Image

from fluxsr.imaging.decode import decode
from fluxsr.imaging.formats import ENDINGS
from fluxsr.imaging.metadata.transfer import carry_over
from fluxsr.imaging.raster import Change, Metadata

EXIF, GPS = 0x8769, 0x8825
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" exif:PixelXDimension="20" '
    b'exif:GPSLatitude="47,3.5N" dc:title="a"><exif:GPSLongitude>8,1E</exif:GPSLongitude>'
    b"<exif:PixelYDimension>30</exif:PixelYDimension></rdf:Description></x:xmpmeta>"
)


def exif() -> Image.Exif:
    made = Image.Exif()
    made[0x010F], made[0x0112], made[0x0100] = "Canon", 6, 20
    made.get_ifd(EXIF).update({0xA002: 20, 0xA003: 30, 0x829A: 1 / 250, 0x927C: b"maker's note"})
    made.get_ifd(GPS).update({1: "N", 2: (47.0, 3.0, 30.0)})
    return made


def parsed(data: bytes) -> Image.Exif:
    found = Image.Exif()
    found.load(b"Exif\0\0" + data)
    return found


def test_xmp_fits_the_enlarged_picture() -> None:
    kept, _ = carry_over(Metadata(xmp=XMP), ENDINGS[".jpg"], Change((20, 30), (120, 80)))
    for words in (
        b'tiff:Orientation="1"',
        b'exif:PixelXDimension="120"',
        b"<exif:PixelYDimension>80<",
        b"47,3.5N",
        b"8,1E",
    ):
        assert words in kept.xmp


def test_gps_goes_alone() -> None:
    all_of_it = Metadata(exif().tobytes().removeprefix(b"Exif\0\0"), XMP, b"iptc", (72.0, 72.0))
    kept, _ = carry_over(all_of_it, ENDINGS[".jpg"], Change((20, 30), (120, 80)), "gps")
    found = parsed(kept.exif)
    assert found[0x010F] == "Canon" and GPS not in found and not found.get_ifd(GPS)
    assert b"GPS" not in kept.xmp and b'dc:title="a"' in kept.xmp
    assert kept.iptc == b"iptc" and kept.dpi == (72.0, 72.0)
    assert carry_over(all_of_it, ENDINGS[".jpg"], Change((20, 30), (120, 80)), "all") == (Metadata(), [])


@pytest.mark.parametrize(
    "odd", [b"<exif:GPSLatitude><rdf:li>47N</rdf:li></exif:GPSLatitude>", b"<other:GPSLatitude>47N</other:GPSLatitude>"]
)
def test_a_place_that_is_written_in_an_odd_way_takes_all_xmp_with_it(odd: bytes) -> None:
    assert carry_over(Metadata(xmp=odd), ENDINGS[".jpg"], Change((20, 30), (1, 1)), "gps")[0].xmp == b""
    assert carry_over(Metadata(xmp=odd), ENDINGS[".jpg"], Change((20, 30), (1, 1)))[0].xmp == odd


def test_hostile_xmp_takes_no_time() -> None:
    started = time.perf_counter()
    for text in (b"<exif:GPSA>", b" exif:GPSA='", b"tiff:Orientation =", b"<exif:GPSA "):
        carry_over(Metadata(xmp=text * 100_000), ENDINGS[".png"], Change((20, 30), (1, 1)), "gps")
    assert time.perf_counter() - started < 20, "quadratic it would be hours"


def test_what_a_format_cannot_hold_is_noted() -> None:
    all_of_it = Metadata(exif().tobytes().removeprefix(b"Exif\0\0"), XMP, b"iptc", (72.0, 72.0))
    kept, notes = carry_over(all_of_it, ENDINGS[".bmp"], Change((20, 30), (1, 1)))
    assert kept == Metadata(dpi=(72.0, 72.0)) and len(notes) == 3
    kept, notes = carry_over(all_of_it, ENDINGS[".webp"], Change((20, 30), (1, 1)))
    assert notes == ["its IPTC is dropped: WEBP cannot store it"]
    assert parsed(kept.exif)[0x011A] == 72, "dpi goes into EXIF where the format has no place of its own"


def test_exif_too_long_for_a_jpeg_loses_the_makers_note_alone() -> None:
    made = exif()
    made.get_ifd(EXIF)[0x927C] = bytes(70_000)
    kept, (note,) = carry_over(
        Metadata(made.tobytes().removeprefix(b"Exif\0\0")), ENDINGS[".jpg"], Change((20, 30), (1, 1))
    )
    assert "too long" in note and parsed(kept.exif)[0x010F] == "Canon" and len(kept.exif) < 1000


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what it finds there
@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_damaged_exif_harms_nothing(tmp_path: Path, cut: int) -> None:
    data = exif().tobytes()
    Image.new("RGB", (20, 30)).save(tmp_path / "a.jpg", exif=data[: 8 + cut] + b"\xff" * 40)
    raster = decode(tmp_path / "a.jpg")
    assert sorted(raster.pixels.shape[:2]) == [20, 30]
    carry_over(raster.metadata, ENDINGS[".jpg"], Change((20, 30), (120, 80)))
