"""Raw files of cameras are refused by what they hold; their previews are never taken for the picture."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.imaging.decode import decode

SENSOR = np.arange(64 * 96, dtype=np.uint16).reshape(64, 96)
PREVIEW = np.full((24, 32, 3), 90, np.uint8)


def raw(path: Path, kind: str) -> None:
    """A file built as cameras and converters build theirs: a preview first, the sensor's data behind it."""
    dng = [(50706, 1, 4, b"\x01\x04\0\0", True)]
    with tifffile.TiffWriter(path) as tiff:
        write = {"metadata": None, "software": False}
        if kind == "DNG":
            tiff.write(PREVIEW, photometric="rgb", subifds=1, subfiletype=1, extratags=dng, **write)
            tiff.write(SENSOR, photometric=32803, subfiletype=0, **write)
        elif kind == "linear DNG":
            tiff.write(np.stack([SENSOR] * 3, -1), photometric=34892, extratags=dng, **write)
        elif kind == "DNG of one page":
            tiff.write(SENSOR, photometric="minisblack", extratags=dng, **write)
        elif kind == "NEF":
            tiff.write(PREVIEW, photometric="rgb", subifds=1, subfiletype=1, **write)
            tiff.write(SENSOR, photometric=32803, subfiletype=0, **write)
        elif kind == "PEF":
            tiff.write(SENSOR, photometric=32803, **write)
        elif kind == "sensor in the second page":
            tiff.write(PREVIEW, photometric="rgb", **write)
            tiff.write(SENSOR, photometric=32803, **write)
        elif kind == "preview in YCbCr":
            tiff.write(PREVIEW, photometric="ycbcr", compression="jpeg", subifds=1, subfiletype=1, **write)
            tiff.write(SENSOR, photometric=32803, **write)


KINDS = ["DNG", "linear DNG", "DNG of one page", "NEF", "PEF", "sensor in the second page", "preview in YCbCr"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_raw_file_under_any_name_is_refused(tmp_path: Path, kind: str) -> None:
    name = f"a.{('dng', 'tif', 'jpg')[KINDS.index(kind) % 3]}"
    raw(tmp_path / name, kind)
    with pytest.raises(InputError, match=rf"{name}.* is a raw file of a camera \(.*\); develop it"):
        decode(tmp_path / name)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"II*\0\x10\0\0\0CR\x02\0", "Canon CR2"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01", "Canon CR3"),
        (b"FUJIFILMCCD-RAW 0201FF", "Fujifilm RAF"),
        (b"IIRO\x08\0\0\0", "Olympus ORF"),
        (b"IIRS\x08\0\0\0", "Olympus ORF"),
        (b"IIU\0\x18\0\0\0", "Panasonic RW2"),
        (b"II\x1a\0\0\0HEAPCCDR", "Canon CRW"),
        (b"FOVb\0\0\x03\0", "Sigma X3F"),
        (b"\0MRM\0\0\xc3\0", "Minolta MRW"),
    ],
)
def test_the_signatures_of_cameras_are_known(tmp_path: Path, head: bytes, name: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(head.ljust(5000, b"\0"))
    with pytest.raises(InputError, match=rf"is a raw file of a camera \({name}\)"):
        decode(tmp_path / "photo.jpg")


@pytest.mark.parametrize("old", [False, True])
def test_a_reduced_first_page_is_refused_where_there_is_more(tmp_path: Path, old: bool) -> None:
    marks: dict[str, Any] = {"extratags": [(255, 3, 1, 2, True)]} if old else {"subfiletype": 1}
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(PREVIEW, photometric="rgb", metadata=None, **marks)
        tiff.write(np.repeat(PREVIEW, 4, 0), photometric="rgb", metadata=None)
    with pytest.raises(InputError, match="holds a reduced preview as its first page"):
        decode(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", PREVIEW, photometric="rgb", metadata=None, **marks)
    assert decode(tmp_path / "b.tif").pixels.shape == PREVIEW.shape, "there is nothing else in it"


def test_other_tiffs_are_read(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as tiff:
        tiff.write(PREVIEW, photometric="rgb", subifds=1, metadata=None)
        tiff.write(PREVIEW[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    Image.fromarray(PREVIEW).save(tmp_path / "plain.tif", compression="jpeg")
    for name in ("pyramid", "plain"):
        assert decode(tmp_path / f"{name}.tif").pixels.shape == PREVIEW.shape


def test_a_damaged_directory_hides_no_mark(tmp_path: Path) -> None:
    stream = BytesIO()
    tifffile.imwrite(
        stream, PREVIEW, photometric="rgb", metadata=None, extratags=[(50706, 1, 4, b"\x01\x04\0\0", True)]
    )
    data = bytearray(stream.getvalue())
    with tifffile.TiffFile(BytesIO(bytes(data))) as tiff:  # the next directory lies far behind the end
        tags = tiff.pages.first.tags
        place = int.from_bytes(data[4:8], "little") + 2 + 12 * len(tags)
    data[place : place + 4] = (10**8).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match="is a raw file of a camera"):
        decode(tmp_path / "a.tif")
