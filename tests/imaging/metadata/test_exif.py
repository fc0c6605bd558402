"""EXIF is carried as bytes: text, unknown tags, the Interoperability directory and maker notes stay what they were."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from fluxsr.imaging import io

EXIF, GPS, INTEROP, NOTE = 0x8769, 0x8825, 0xA005, 0x927C
WITH_EXIF = [".jpg", ".png", ".webp", ".avif", ".tif"]
PLACE = struct.pack("<6I", 47, 1, 3, 1, 30, 1)


@pytest.fixture
def jpeg(tmp_path: Path, files: Any) -> Any:
    """A JPEG with the EXIF of a camera: jpeg(order="<", orientation=1)."""
    return lambda **how: files.saved(tmp_path, ".jpg", exif=b"Exif\0\0" + files.camera(**how))


class TestExif:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("ending", WITH_EXIF)
    def test_what_nobody_changes_survives_to_the_byte(self, files: Any, jpeg: Any, ending: str, order: str) -> None:
        target, notes = files.enlarged(jpeg(order=order), ending)
        found = files.block(target)
        assert found.main[0x013B] == files.JOSE and found.main[0x8298] == b"\xa9 Jos\xe9\0", "text that is not ASCII"
        assert found.main[0xBEEF] == bytes(range(40)), "an unknown tag"
        assert found.inner(EXIF, INTEROP) == {1: b"R03\0", 2: b"0100"}, "the mark of Adobe RGB"
        assert found.name_in_note() == files.NAME, "the maker note's own offsets lead to what they led to"
        assert found.order == order and not notes

    @pytest.mark.parametrize("ending", [".png", ".webp", ".avif", ".tif"])
    def test_from_every_format(self, files: Any, jpeg: Any, tmp_path: Path, ending: str) -> None:
        first, _ = files.enlarged(jpeg(), ending)
        found = files.block(files.enlarged(first.rename(tmp_path / f"again{ending}"), ".jpg")[0])
        assert found.main[0x013B] == files.JOSE and found.main[0xBEEF] == bytes(range(40))
        assert found.inner(EXIF, INTEROP)[1] == b"R03\0" and found.name_in_note() == files.NAME

    @pytest.mark.parametrize("ending", WITH_EXIF)
    def test_only_what_changed_is_changed(self, files: Any, jpeg: Any, ending: str) -> None:
        found = files.block(files.enlarged(jpeg(orientation=6), ending)[0])
        assert found.main.get(0x0112, b"\1\0") == b"\1\0", "upright"
        details = found.inner(EXIF)
        assert found.numbers(details[0xA002] + details[0xA003]) == [90, 60]
        # the point (5,10) of 20x30 is (30 - 10, 5) of 30x20
        assert found.numbers(details[0x9214]) == [3 * 20, 3 * 5, 3 * 6, 3 * 4]
        over, under = found.numbers(details[0xA20E], "I")
        assert over / under == 3000, "pixels per unit of the sensor"
        assert found.inner(GPS)[2] == PLACE
        assert files.THUMBNAIL not in found.data

    def test_all_other_bytes_stay_where_they_are(self, files: Any, jpeg: Any) -> None:
        before, after = files.camera(), files.block(files.enlarged(jpeg())[0]).data
        changed = [place for place, (old, new) in enumerate(zip(before, after, strict=False)) if old != new]
        assert len(changed) < 100 and len(after) <= len(before), "sizes, the thumbnail and the chain to it"

    def test_the_place_alone_can_be_left_out(self, files: Any, jpeg: Any) -> None:
        found = files.block(files.enlarged(jpeg(), strip_gps=True)[0])
        assert GPS not in found.main and PLACE not in found.data
        assert found.main[0x013B] == files.JOSE and found.name_in_note() == files.NAME

    def test_in_a_bigtiff(self, files: Any, jpeg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        source = jpeg()
        monkeypatch.setattr("fluxsr.imaging.formats.tiff._LARGE", 0)
        target, _ = files.enlarged(source, ".tif")
        with tifffile.TiffFile(target) as tiff:
            assert tiff.is_bigtiff and tiff.pages.first.tags["ExifTag"].value["ExposureTime"] == (1, 250)
        again = io.read(target)
        assert again.lr.shape[-2:] == (90, 60) and b"IMG:EOS" in again.metadata.exif


class TestInteroperability:
    def test_a_pointer_to_nowhere_is_removed(self, files: Any, tmp_path: Path) -> None:
        data = bytearray(files.camera())
        at = data.index(struct.pack("<HHI", INTEROP, 4, 1)) + 8
        data[at : at + 4] = struct.pack("<I", 1 << 20)
        found = files.block(files.enlarged(files.saved(tmp_path, ".jpg", exif=b"Exif\0\0" + bytes(data)))[0])
        assert INTEROP not in found.inner(EXIF) and found.inner(EXIF)[0xA002]

    def test_it_tells_srgb_where_the_colours_were_converted(self, files: Any, tmp_path: Path) -> None:
        told = {"exif": b"Exif\0\0" + files.camera(), "icc_profile": bytes(imagecodecs.cms_profile("adobergb"))}
        source = files.saved(tmp_path, ".jpg", **told)
        kept = files.block(files.enlarged(source)[0])
        assert kept.inner(EXIF, INTEROP)[1] == b"R03\0" and kept.inner(EXIF)[0xA001] == b"\xff\xff"
        converted = files.block(files.enlarged(source, profile="srgb")[0])
        assert converted.inner(EXIF, INTEROP)[1] == b"R98\0" and converted.inner(EXIF)[0xA001] == b"\1\0"


class TestMakerNote:
    def test_data_that_it_has_outside_itself_stay(self, files: Any, tmp_path: Path) -> None:
        preview = b"a preview that nothing but the maker note leads to"
        data = files.camera() + b"\0" * 40 + preview
        found = files.block(files.enlarged(files.saved(tmp_path, ".jpg", exif=b"Exif\0\0" + data))[0])
        assert found.data[data.index(preview) :].startswith(preview)

    @pytest.mark.parametrize(("note", "kept"), [(b"Nikon\0\2\x10\0\0MM\0*", True), (b"Canon's, with offsets", False)])
    def test_far_inside_a_tiff_it_goes_with_a_note(self, files: Any, tmp_path: Path, note: bytes, kept: bool) -> None:
        source = tmp_path / "in.tif"
        tifffile.imwrite(source, np.asarray(files.picture()), photometric="rgb", extratags=[(34666, 4, 1, 0, True)])
        with tifffile.TiffFile(source) as tiff:
            at = tiff.pages.first.tags[34666].offset
        data = bytearray(source.read_bytes()).ljust(200_000, b"\0")
        data[at : at + 12] = struct.pack("<HHII", EXIF, 4, 1, len(data))
        source.write_bytes(data + files.directory("<", len(data), {NOTE: (7, note), 0x829A: (5, bytes(8))}))
        target, notes = files.enlarged(source, ".jpg")
        assert (NOTE in files.block(target).inner(EXIF)) is kept and ("maker note" in notes) is not kept

    def test_too_long_for_a_jpeg_it_goes_alone(self, files: Any, tmp_path: Path) -> None:
        source = files.saved(tmp_path, ".png", exif=files.camera() + b"\1" * 70_000)
        target, notes = files.enlarged(source, ".jpg")
        assert "too long" in notes and NOTE not in files.block(target).inner(EXIF)
        assert files.block(target).main[0x013B] == files.JOSE
