"""Files in: every kind is read to the bit, and what cannot be read gives one line."""

from __future__ import annotations

import importlib.util
import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from fluxsr.errors import InputError, TooLargeError
from fluxsr.imaging import io
from fluxsr.imaging.decode import decode, size_of


def photograph(width: int = 24, height: int = 18) -> Image.Image:
    pixels = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0))
    return Image.fromarray((pixels * 255).byte().numpy())


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32768, 65535]] * 2, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = io.read(tmp_path / "a.png").image
    assert np.asarray(image)[0, :, 1].tolist() == [0, 1, 128, 255]


NOISE = np.random.default_rng(0)


def noise(channels: int, dtype: type = np.uint16, height: int = 18, width: int = 24) -> np.ndarray:
    return NOISE.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype, endpoint=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png_to_the_bit(tmp_path: Path, channels: int) -> None:
    pixels = noise(channels)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels.squeeze()))
    assert np.array_equal(decode(tmp_path / "a.png").pixels, pixels)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_to_the_bit(tmp_path: Path, compression: str | None, channels: int, planar: str, dtype: type) -> None:
    pixels = noise(channels, dtype)
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels.squeeze() if planar == "contig" or channels == 1 else np.moveaxis(pixels, -1, 0),
        photometric="rgb" if channels > 1 else "minisblack",
        planarconfig=planar if channels > 1 else None,
        extrasamples=["unassalpha"] if channels == 4 else None,
        compression=compression,
        predictor=compression is not None,
    )
    assert np.array_equal(decode(tmp_path / "a.tif").pixels, pixels)
    assert not decode(tmp_path / "a.tif").notes


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_tiff(tmp_path: Path, dtype: type) -> None:
    values = NOISE.random((18, 24, 3)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    found = decode(tmp_path / "a.tif").pixels
    assert found.dtype == np.float32 and np.array_equal(found, values.astype(np.float32))
    tifffile.imwrite(tmp_path / "a.tif", 9 * values, photometric="rgb")
    with pytest.raises(InputError, match=r"a.tif: floating-point pixels from .* to .*; expected \[0,1\]"):
        decode(tmp_path / "a.tif")


def test_alpha_that_was_multiplied_in_is_divided_out(tmp_path: Path) -> None:
    pixels = np.full((18, 24, 4), 32768, np.uint16)
    pixels[..., :3] //= 2
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["assocalpha"])
    found = decode(tmp_path / "a.tif").pixels
    assert np.abs(found[..., :3].astype(int) - 32768).max() <= 1 and (found[..., 3] == 32768).all()


def test_of_several_pages_or_frames_the_first_with_a_note(tmp_path: Path) -> None:
    first, second = photograph(), Image.new("RGB", (24, 18), "teal")
    for name in ("a.tif", "a.gif", "a.webp", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], **options)
        found = decode(tmp_path / name)
        assert found.notes == ("has several pages or frames; the first was taken",), name
        if name != "a.gif":
            assert np.array_equal(found.pixels, np.asarray(first)), name
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        for page in (noise(3), noise(3)):
            writer.write(page, photometric="rgb")
    assert decode(tmp_path / "b.tif").notes == ("has several pages or frames; the first was taken",)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits(tmp_path: Path, bits: int) -> None:
    levels = 2**bits
    palette = Image.fromarray((np.arange(24 * 18).reshape(18, 24) % levels).astype(np.uint8), "P")
    palette.putpalette([value for level in range(levels) for value in (level * 10, 255 - level, 7)])
    palette.save(tmp_path / "a.png", bits=bits)
    found = decode(tmp_path / "a.png").pixels
    assert np.array_equal(found, np.asarray(palette.convert("RGB")))
    grey = np.arange(24 * 18).reshape(18, 24) % 2 == 1
    Image.fromarray(grey).save(tmp_path / "b.png")
    assert np.array_equal(decode(tmp_path / "b.png").pixels[..., 0], grey * np.uint8(255))


def test_a_palette_of_greys_is_grey(tmp_path: Path) -> None:
    image = Image.linear_gradient("L").resize((24, 18))
    image.convert("P").save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png").pixels[..., 0], np.asarray(image))
    assert decode(tmp_path / "a.png").pixels.shape == (18, 24, 1)


def test_progressive_jpeg(tmp_path: Path) -> None:
    photograph().save(tmp_path / "a.jpg", progressive=True, quality=95)
    photograph().save(tmp_path / "b.jpg", quality=95)
    assert b"\xff\xc2" in (tmp_path / "a.jpg").read_bytes(), "a frame of progressive scans"
    one, two = (decode(tmp_path / name).pixels.astype(int) for name in ("a.jpg", "b.jpg"))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_interlaced_png(tmp_path: Path, dtype: type) -> None:
    pixels = noise(3, dtype)
    (tmp_path / "a.png").write_bytes(interlaced(pixels))
    assert np.array_equal(decode(tmp_path / "a.png").pixels, pixels)


def interlaced(pixels: np.ndarray) -> bytes:
    """RGB as a PNG in the seven passes of Adam7, which no library at hand writes."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    big = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in big[y::dy, x::dx])
    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8 * pixels.itemsize, 2, 0, 0, 1)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize("transparency", [0, (10, 20, 30)])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, transparency: int | tuple[int, int, int]) -> None:
    image = Image.new("L" if transparency == 0 else "RGB", (16, 16), transparency)
    image.paste(Image.new(image.mode, (8, 16), 200 if transparency == 0 else (1, 2, 3)))
    image.save(tmp_path / "a.png", transparency=transparency)
    found = decode(tmp_path / "a.png").pixels
    assert (found[:, :8, -1] == 255).all() and (found[:, 8:, -1] == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tif"):
        photograph().save(tmp_path / name, exif=exif)
        from PIL import ImageOps

        with Image.open(tmp_path / name) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        assert np.array_equal(decode(tmp_path / name).pixels, expected), name


@pytest.mark.parametrize("lost", [1, 2, 1000])
def test_a_jpeg_without_its_last_bytes_is_read_with_a_note(tmp_path: Path, lost: int) -> None:
    photograph(400, 400).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-lost])
    found = decode(tmp_path / "b.jpg")
    assert found.notes == ("is cut off at its end; its last rows may be missing",)
    assert np.array_equal(found.pixels[:380], decode(tmp_path / "a.jpg").pixels[:380])


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    photograph().save(tmp_path / "a.png", format="JPEG")
    assert decode(tmp_path / "a.png").format == "JPEG"


def test_programs_disguised_as_pictures_are_not_opened(tmp_path: Path) -> None:
    stream = BytesIO()
    photograph().save(stream, format="EPS")
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="is not an image that can be read"):
        decode(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("ending", "package", "extra"), [(".heic", "pillow_heif", "heic"), (".jxl", "pillow_jxl", "jxl")]
)
def test_what_an_extra_is_needed_for(
    tmp_path: Path, ending: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / f"a{ending}").write_bytes(b"no such thing")
    with pytest.raises(InputError, match=rf'needs {package}; pip install "fluxsr\[{extra}\]"'):
        decode(tmp_path / f"a{ending}")


@pytest.mark.parametrize(("kind", "share"), [("PNG", 0.5), ("JPEG", 0.5), ("GIF", 0.5), ("BMP", 0.5), ("WEBP", 1)])
def test_a_size_is_known_from_the_beginning_of_a_file(kind: str, share: float) -> None:
    """But for formats whose decoder wants it whole."""
    file = BytesIO()
    Image.effect_noise((300, 200), 90).save(file, kind)
    data = file.getvalue()
    assert size_of(BytesIO(data[: int(share * len(data))])) == (300, 200)
    assert size_of(BytesIO(data[:10])) is None and size_of(BytesIO(b"not an image at all")) is None


def test_a_pipe_is_called_a_pipe_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")  # nobody writes to it: opening it would block for ever
    for path in (tmp_path / "a.jpg", Path(os.devnull)):
        with pytest.raises(InputError, match=f"{path.name} is a pipe or a device, not a file; save its contents"):
            decode(path)


def test_bad_files_give_one_line_that_names_them(tmp_path: Path) -> None:
    """Other kinds are in the table of docs/formats.md."""
    photograph(200, 200).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:4000])
    (tmp_path / "none.ppm").write_bytes(b"P6\n0 0\n255\n")
    said = {"missing.png": "does not exist", "": "is a folder", "cut.jpg": "is damaged", "none.ppm": "is not an image"}
    for name, words in said.items():
        with pytest.raises(InputError, match=words) as caught:
            io.read(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    photograph().save(tmp_path / "a.png")
    with pytest.raises(TooLargeError, match=r"24x18 are 432 pixels, the limit is 431 \(--max-pixels\)"):
        decode(tmp_path / "a.png", max_pixels=431)
    assert decode(tmp_path / "a.png", max_pixels=432).pixels.shape == (18, 24, 3)


def test_what_is_only_not_supported_is_not_called_damaged(tmp_path: Path) -> None:
    head = b"BM" + struct.pack("<IHHI", 500, 0, 0, 214) + struct.pack("<I", 200) + bytes(400)
    stream = BytesIO()
    tifffile.imwrite(stream, noise(3, np.uint8), photometric="rgb", metadata=None)
    data = bytearray(stream.getvalue())
    with tifffile.TiffFile(BytesIO(bytes(data))) as tiff:
        place = tiff.pages.first.tags["Compression"].valueoffset
    data[place : place + 2] = struct.pack("<H", 34676)  # SGI LogLuv
    for unknown in (head, data):
        (tmp_path / "a.png").write_bytes(unknown)
        with pytest.raises(InputError, match=r"a.png is not supported: .*; save it as PNG or TIFF"):
            decode(tmp_path / "a.png")
