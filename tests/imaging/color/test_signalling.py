"""What files say of their colours besides ICC profiles: it is converted to sRGB for the model, and written back."""

from __future__ import annotations

import runpy
import struct
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from torch.nn.functional import interpolate

from fluxsr.errors import InputError
from fluxsr.imaging import io
from fluxsr.imaging.color import colorimetry
from fluxsr.imaging.decode import decode
from fluxsr.imaging.formats import boxes, png
from fluxsr.imaging.picture import Picture
from fluxsr.options import UpscaleOptions

_items = runpy.run_path(str(Path(__file__).parents[1] / "items.py"))
chunk, jp2 = _items["chunk"], _items["jp2"]
COLOURS = np.repeat(np.repeat(np.array([[(40, 200, 60), (200, 30, 40), (120, 120, 120)]], np.uint8), 16, 0), 16, 1)
PLACES = (4, 20, 40)  # columns inside each of the three
P3_AS_SRGB = [(-0.24, 0.798, 0.029), (0.861, -0.05, 0.111), (0.471, 0.471, 0.471)]  # computed from SMPTE EG 432-1


def with_chunks(path: Path, pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> Path:
    """A PNG with those chunks behind its header."""
    data = bytes(imagecodecs.png_encode(pixels))
    path.write_bytes(data[:33] + b"".join(chunk(*each) for each in chunks) + data[33:])
    return path


def avif(path: Path, primaries: int, transfer: int) -> Path:
    path.write_bytes(
        imagecodecs.avif_encode(COLOURS, level=100, primaries=primaries, transfer=transfer, matrix=6)  # BT.601
    )
    return path


def doubled(source: Path, target: Path) -> Picture:
    picture = io.read(source)
    hr = interpolate(picture.lr, scale_factor=2, mode="nearest")
    io.write_enlarged(picture, [hr], (hr.shape[-2], hr.shape[-1]), target, UpscaleOptions())
    return picture


def seen(picture: Picture) -> np.ndarray:
    """The three colours in sRGB, what lies outside it included."""
    colours = picture.lr if picture.out_of_gamut is None else picture.lr + picture.out_of_gamut
    return colours[0, :, 8, PLACES].T.numpy()


def written(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))[16, [2 * place for place in PLACES]].astype(int)


@pytest.mark.parametrize("ending", [".avif", ".png", ".tif", ".jpg"])
def test_code_points_of_an_avif_are_applied_and_given_back(tmp_path: Path, ending: str) -> None:
    picture = doubled(avif(tmp_path / "a.avif", 12, 13), tmp_path / f"b{ending}")
    assert np.abs(np.array(P3_AS_SRGB) - seen(picture))[[0, 1, 2, 2], [1, 0, 0, 1]].max() < 0.01
    assert seen(picture)[0, 0] < -0.2, "outside sRGB, and not clipped"
    assert np.abs(written(tmp_path / f"b{ending}") - COLOURS[8, list(PLACES)]).max() <= 3, "the same values"
    assert decode(tmp_path / f"b{ending}").profile == colorimetry.profile_from_cicp(12, 13), (
        "that still mean Display P3"
    )
    if ending == ".avif":
        assert boxes.cicp(BytesIO((tmp_path / "b.avif").read_bytes())) == bytes((12, 13, 0, 1))
    if ending == ".png":
        assert dict(png.color_chunks(BytesIO((tmp_path / "b.png").read_bytes())))[b"cICP"] == bytes((12, 13, 0, 1))


def test_bt709_is_not_srgb_and_comes_back(tmp_path: Path) -> None:
    picture = doubled(avif(tmp_path / "a.avif", 1, 1), tmp_path / "b.avif")
    light = ((120 / 255 + 0.099) / 1.099) ** (1 / 0.45)
    expected = 1.055 * light ** (1 / 2.4) - 0.055
    assert abs(seen(picture)[2].mean() - expected) < 0.005 and expected > 130 / 255
    assert np.abs(written(tmp_path / "b.avif")[2] - 120).max() <= 1
    assert boxes.cicp(BytesIO((tmp_path / "b.avif").read_bytes()))[:2] == bytes((1, 1))


def test_an_avif_in_srgb_stays_as_it_is(tmp_path: Path) -> None:
    picture = doubled(avif(tmp_path / "a.avif", 1, 13), tmp_path / "b.avif")
    assert picture.profile == b"" and picture.out_of_gamut is None
    assert decode(tmp_path / "b.avif").profile == b""
    assert doubled(avif(tmp_path / "a.avif", 2, 2), tmp_path / "b.png").colors == (), "unspecified"


def test_a_profile_of_hdr_is_refused_in_every_format(tmp_path: Path) -> None:
    # Any curve will do: that of PQ is no formula of ICC, so such profiles have tables and a name.
    linear = colorimetry._CURVES[8]
    profile = colorimetry.profile_from_primaries(colorimetry._PRIMARIES[9], linear, name="ITU-R BT.2100 PQ")
    for ending in (".tif", ".png", ".jpg", ".webp", ".avif"):
        Image.fromarray(COLOURS).save(tmp_path / f"a{ending}", icc_profile=profile)
        with pytest.raises(InputError, match=r"is an HDR image \(PQ\)"):
            decode(tmp_path / f"a{ending}")


def test_code_points_of_a_heic(tmp_path: Path) -> None:
    import pillow_heif

    made = pillow_heif.from_pillow(Image.fromarray(COLOURS))
    made.save(
        tmp_path / "a.heic", quality=100, chroma=444, save_nclx_profile=True,
        color_primaries=12, transfer_characteristics=13, matrix_coefficients=6, full_range_flag=1,
    )  # fmt: skip
    picture = doubled(tmp_path / "a.heic", tmp_path / "b.jpg")
    assert abs(seen(picture)[0, 1] - P3_AS_SRGB[0][1]) < 0.02
    assert np.abs(written(tmp_path / "b.jpg") - COLOURS[8, list(PLACES)]).max() <= 4
    assert decode(tmp_path / "b.jpg").profile == colorimetry.profile_from_cicp(12, 13)


GAMMA = (b"gAMA", struct.pack(">I", 55556))  # 1.8
ADOBE = (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    "chunks", [(GAMMA,), (ADOBE,), (GAMMA, ADOBE), ((b"cICP", bytes((12, 13, 0, 1))),), ((b"sRGB", b"\1"),)]
)
def test_png_chunks_are_applied_and_given_back(
    tmp_path: Path, chunks: tuple[tuple[bytes, bytes], ...], deep: bool
) -> None:
    pixels = COLOURS.astype(np.uint16) * 257 if deep else COLOURS
    picture = doubled(with_chunks(tmp_path / "a.png", pixels, *chunks), tmp_path / "b.png")
    expected = colorimetry.profile_from_png(chunks, grey=False)
    assert picture.profile == expected and bool(expected) == (chunks[0][0] != b"sRGB")
    if chunks == (GAMMA,):
        light = (120 / 255) ** 1.8
        assert abs(seen(picture)[2].mean() - (1.055 * light ** (1 / 2.4) - 0.055)) < 1e-3
    assert png.color_chunks(BytesIO((tmp_path / "b.png").read_bytes())) == chunks
    found = decode(tmp_path / "b.png")
    assert found.profile == expected
    assert np.abs(found.pixels[16, [2 * place for place in PLACES]] - pixels[8, list(PLACES)].astype(int)).max() <= 1


def test_gamma_of_a_grey_png_and_in_another_format(tmp_path: Path) -> None:
    with_chunks(tmp_path / "a.png", COLOURS[..., 0].copy(), GAMMA)
    doubled(tmp_path / "a.png", tmp_path / "b.png")
    doubled(tmp_path / "a.png", tmp_path / "b.tif")
    for ending in (".png", ".tif"):
        raster = decode(tmp_path / f"b{ending}")
        assert raster.pixels.shape[-1] == 1 and raster.profile[16:20] == b"GRAY"
        assert abs(int(raster.pixels[16, 80, 0]) - 120) <= 1
    doubled(tmp_path / "a.png", tmp_path / "b.bmp")  # which cannot store it: the values are sRGB's
    assert abs(int(decode(tmp_path / "b.bmp").pixels[16, 80, 0]) - 120) > 5


def test_srgb_asked_for_leaves_no_word_of_other_colours(tmp_path: Path) -> None:
    picture = io.read(with_chunks(tmp_path / "a.png", COLOURS, GAMMA, ADOBE))
    io.write_enlarged(
        picture, [picture.lr.clone()], COLOURS.shape[:2], tmp_path / "b.png", UpscaleOptions(profile="srgb")
    )
    found = decode(tmp_path / "b.png")
    assert not found.profile and not found.colors


@pytest.mark.parametrize("mark", ["R03", "color space 2"])
def test_adobe_rgb_by_exif_alone(tmp_path: Path, mark: str) -> None:
    exif = Image.Exif()
    details = exif.get_ifd(0x8769)
    if mark == "R03":
        details[0xA001] = 65535
        details[0xA005] = {1: "R03", 2: b"0100"}
    else:
        details[0xA001] = 2
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    picture = doubled(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert picture.profile == colorimetry.adobe_rgb() and picture.out_of_gamut is not None
    assert np.abs(written(tmp_path / "b.jpg") - COLOURS[8, list(PLACES)]).max() <= 3
    exif.get_ifd(0x8769)[0xA005] = {1: "R98", 2: b"0100"}
    details[0xA001] = 1
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").profile == b""


def test_the_profile_of_a_jpeg_2000(tmp_path: Path) -> None:
    adobe = colorimetry.adobe_rgb()
    jp2(tmp_path / "a.jp2", b"\2\0\0" + adobe, COLOURS)
    picture = doubled(tmp_path / "a.jp2", tmp_path / "b.png")
    assert picture.profile == adobe and decode(tmp_path / "b.png").profile == adobe
    assert np.abs(written(tmp_path / "b.png") - COLOURS[8, list(PLACES)]).max() <= 1
    jp2(tmp_path / "a.jp2", b"\5\0\0" + struct.pack(">HHHB", 12, 13, 0, 0x80), COLOURS)
    assert decode(tmp_path / "a.jp2").profile == colorimetry.profile_from_cicp(12, 13)


def test_damaged_boxes_say_nothing(tmp_path: Path) -> None:
    data = avif(tmp_path / "a.avif", 12, 13).read_bytes()
    for length in range(0, 400, 7):
        assert boxes.cicp(BytesIO(data[:length])) in (b"", bytes((12, 13, 0, 1)))
        assert boxes.jp2_colours(BytesIO(data[:length])) == (b"", b"")
