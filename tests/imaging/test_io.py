"""Files in, files out: what is kept, what is refused, and that no half file is ever left."""

from __future__ import annotations

import os
import stat
import struct
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from fluxsr.errors import InputError, OutputError
from fluxsr.imaging import io


def photograph(width: int = 24, height: int = 18) -> Image.Image:
    pixels = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0))
    return Image.fromarray((pixels * 255).byte().numpy())


def test_tensor_round_trip_is_exact() -> None:
    image = photograph()
    tensor = io.to_tensor(image)
    assert tensor.shape == (1, 3, 18, 24) and tensor.dtype == torch.float32
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert np.array_equal(np.asarray(io.to_pil(tensor)), np.asarray(image))


def test_to_pil_rounds_and_clamps() -> None:
    values = torch.tensor([-0.5, 0.4999 / 255, 0.5001 / 255, 2.0]).expand(3, 1, 4)
    assert np.asarray(io.to_pil(values))[0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("ending", sorted(io.FORMATS))
def test_every_format_is_written_and_read(tmp_path: Path, ending: str) -> None:
    io.write(photograph(), tmp_path / "new" / f"a{ending}")
    back = io.read(tmp_path / "new" / f"a{ending}").image
    assert back.mode == "RGB" and back.size == (24, 18)
    if ending in (".png", ".tif", ".bmp"):
        assert np.array_equal(np.asarray(back), np.asarray(photograph()))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    photograph().save(tmp_path / "a.jpg", exif=exif)
    assert io.read(tmp_path / "a.jpg").image.size == (18, 24)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_modes_become_rgb(mode: str) -> None:
    image = io.to_rgb(photograph().convert("L").convert("RGB").convert(mode))
    assert image.mode == "RGB"
    if mode in ("L", "LA", "RGBA"):
        assert np.array_equal(np.asarray(image)[..., 0], np.asarray(photograph().convert("L")))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32768, 65535]] * 2, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = io.read(tmp_path / "a.png").image
    assert np.asarray(image)[0, :, 1].tolist() == [0, 1, 128, 255]


def test_floating_point_pixels() -> None:
    image = io.to_rgb(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)))
    assert np.asarray(image)[0, :, 2].tolist() == [0, 128, 255]
    with pytest.raises(InputError, match=r"from 0 to 9; expected \[0,1\]"):
        io.to_rgb(Image.fromarray(np.array([[0.0, 9.0]], dtype=np.float32)))


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    image.save(tmp_path / "a.png")
    assert io.read(tmp_path / "a.png").image.getpixel((3, 3)) == (255, 255, 255)
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([255, 0, 0])
    palette.save(tmp_path / "p.png", transparency=0)
    assert io.read(tmp_path / "p.png").image.getpixel((3, 3)) == (255, 255, 255)


def icc(colours: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", between: bytes = b"XYZ ") -> bytes:
    """An ICC profile made by hand, because Pillow writes none but sRGB's: a header, a table of tags, their data."""
    table, data, place = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", place + len(data), len(value))
        data += value
    head = struct.pack(">I4sI4s4s4s", place + len(data), b"lcms", 0x02400000, kind, colours, between)
    head += bytes(12) + b"acsp" + bytes(28) + xyz(0.9642, 1.0, 0.8249)[8:]
    return head.ljust(128, b"\0") + table + data


def xyz(*values: float) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *(round(value * 65536) for value in values))


def profile(colours: bytes = b"RGB ") -> bytes:
    """sRGB's primaries, or grey, with a gamma of 2."""
    curve = b"curv" + struct.pack(">IIH2x", 0, 1, 2 * 256)
    if colours == b"GRAY":
        return icc(colours, {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"kTRC": curve})
    tags = {
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.4361, 0.2225, 0.0139),
        b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
    }
    return icc(colours, tags | {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")})


def cmyk_profile() -> bytes:
    """A press that prints grey where cyan is asked for, and black only from black."""
    straight = bytes(range(256))
    lightness = [0 if k else 128 if c else 255 for c, _, _, k in product((0, 1), repeat=4)]
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + straight * 4
    table += bytes(value for light in lightness for value in (light, 128, 128)) + straight * 3
    return icc(b"CMYK", {b"A2B0": table, b"wtpt": xyz(0.9642, 1.0, 0.8249)}, b"prtr", b"Lab ")


def srgb_of(value: int, gamma: float = 2) -> float:
    """What 8 bits of that gamma are in sRGB (IEC 61966-2-1)."""
    light = (value / 255) ** gamma
    return 255 * (1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(("mode", "colours"), [("RGB", b"RGB "), ("L", b"GRAY"), ("L", b"RGB "), ("P", b"RGB ")])
def test_an_icc_profile_is_converted_to_srgb(tmp_path: Path, mode: str, colours: bytes) -> None:
    Image.new("L", (16, 16), 80).convert(mode).save(tmp_path / "a.png", icc_profile=profile(colours=colours))
    found = io.read(tmp_path / "a.png").image
    assert found.mode == "RGB"
    assert np.abs(np.asarray(found) - srgb_of(80)).max() <= 1 and srgb_of(80) > 87


@pytest.mark.parametrize(("mode", "colours"), [("RGBA", b"RGB "), ("LA", b"GRAY")])
def test_transparency_survives_the_conversion(tmp_path: Path, mode: str, colours: bytes) -> None:
    image = Image.new("L", (16, 16), 80).convert(mode)
    image.putalpha(Image.linear_gradient("L").resize((16, 16)).point(lambda alpha: 255 if alpha > 127 else 0))
    image.save(tmp_path / "a.png", icc_profile=profile(colours=colours))
    found = np.asarray(io.read(tmp_path / "a.png").image)
    assert (found[0] == 255).all() and np.abs(found[-1] - srgb_of(80)).max() <= 1


def test_cmyk_with_a_profile(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "a.jpg", icc_profile=cmyk_profile())
    found = np.asarray(io.read(tmp_path / "a.jpg").image)
    assert np.abs(found - 119.0).max() <= 2, "L* = 50 is 119 in sRGB; without the profile it would be cyan"


def test_sixteen_bit_grey_with_a_profile(tmp_path: Path) -> None:
    grey = Image.fromarray(np.full((16, 16), 80 * 257, dtype=np.uint16))
    grey.save(tmp_path / "a.png", icc_profile=profile(colours=b"GRAY"))
    assert np.abs(np.asarray(io.read(tmp_path / "a.png").image) - srgb_of(80)).max() <= 1


def test_an_srgb_profile_changes_next_to_nothing(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photograph().save(tmp_path / "a.png", icc_profile=srgb)
    difference = np.asarray(io.read(tmp_path / "a.png").image).astype(int) - np.asarray(photograph())
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("mode", "data"),
    [("RGB", b"no profile"), ("RGB", profile()[:150]), ("RGB", profile(colours=b"GRAY")), ("CMYK", profile())],
    ids=["none", "cut", "grey", "cmyk"],
)
def test_a_profile_that_does_not_fit_is_ignored(tmp_path: Path, mode: str, data: bytes) -> None:
    image = photograph().convert(mode)
    image.save(tmp_path / "a.tif", icc_profile=data)
    assert np.array_equal(np.asarray(io.read(tmp_path / "a.tif").image), np.asarray(image.convert("RGB")))


def bad_file(folder: Path, kind: str) -> Path:
    """A file of the named kind of badness."""
    if kind == "missing":
        return folder / "missing.png"
    if kind == "folder":
        return folder
    path = folder / f"{kind}.png"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "truncated":
        path = path.with_suffix(".jpg")
        photograph(200, 200).save(path)
        path.write_bytes(path.read_bytes()[:4000])
    elif kind == "truncated png":
        photograph(200, 200).save(path)
        path.write_bytes(path.read_bytes()[:4000])
    elif kind == "no pixels":
        path = path.with_suffix(".ppm")
        path.write_bytes(b"P6\n0 0\n255\n")
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "does not exist"),
        ("folder", "is a folder"),
        ("empty", "is empty"),
        ("text", "is not an image"),
        ("truncated", "is damaged or cut off"),
        ("truncated png", "is damaged or cut off"),
        ("no pixels", "no pixels|not an image|damaged"),
    ],
)
def test_bad_files_give_one_line_that_names_them(tmp_path: Path, kind: str, words: str) -> None:
    path = bad_file(tmp_path, kind)
    with pytest.raises(InputError, match=words) as caught:
        io.read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_failed_write_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="a.png cannot be written: No space left on device"):
        io.write(photograph(), target)
    assert target.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        io.write(photograph(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places_are_output_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for check in (io.check_writable, lambda path: io.write(photograph(), path)):
        with pytest.raises(OutputError, match="cannot write '.xyz' files; use one of .png"):
            check(tmp_path / "a.xyz")
        with pytest.raises(OutputError, match="cannot be written"):
            check(tmp_path / "file" / "a.png")
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        with pytest.raises(OutputError, match="cannot be written"):
            check(tmp_path / "folder.png")
    io.check_writable(tmp_path / "deep" / "er" / "a.png")
    assert list((tmp_path / "deep" / "er").iterdir()) == []


def test_a_formats_own_limit_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        io.write(Image.new("RGB", (17000, 1)), tmp_path / "a.webp")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_outputs_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    io.write(photograph(), tmp_path / "a.png")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "a.png")]
    assert modes[0] == modes[1]
