"""Files in, files out, no half file ever left; every accepted kind of image gives the same tensor."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.errors import InputError, OutputError
from fluxsr.imaging import io
from fluxsr.imaging.atomic import check_writable
from fluxsr.imaging.formats import ENDINGS


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


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_every_format_is_written_and_read(tmp_path: Path, ending: str) -> None:
    io.write(photograph(), tmp_path / "new" / f"a{ending}")
    back = io.read(tmp_path / "new" / f"a{ending}").image
    assert back.mode == "RGB" and back.size == (24, 18)
    if ending in (".png", ".tif", ".bmp"):
        assert np.array_equal(np.asarray(back), np.asarray(photograph()))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_modes_become_rgb(mode: str) -> None:
    image = io.to_rgb(photograph().convert("L").convert("RGB").convert(mode))
    assert image.mode == "RGB"
    if mode in ("L", "LA", "RGBA"):
        assert np.array_equal(np.asarray(image)[..., 0], np.asarray(photograph().convert("L")))


def test_floating_point_pixels() -> None:
    image = io.to_rgb(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)))
    assert np.asarray(image)[0, :, 2].tolist() == [0, 128, 255]
    with pytest.raises(InputError, match=r"from 0 to 9; expected \[0,1\]"):
        io.to_rgb(Image.fromarray(np.array([[0.0, 9.0]], dtype=np.float32)))


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        io.write(photograph(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places_are_output_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write '.xyz' files; use one of .png"):
        io.write(photograph(), tmp_path / "a.xyz")
    for check in (check_writable, lambda path: io.write(photograph(), path)):
        with pytest.raises(OutputError, match="cannot be written"):
            check(tmp_path / "file" / "a.png")
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        with pytest.raises(OutputError, match="cannot be written"):
            check(tmp_path / "folder.png")
    check_writable(tmp_path / "deep" / "er" / "a.png")
    assert list((tmp_path / "deep" / "er").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_outputs_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    io.write(photograph(), tmp_path / "a.png")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "a.png")]
    assert modes[0] == modes[1]


PIXELS = np.arange(16 * 20 * 3, dtype=np.uint8).reshape(16, 20, 3)


def test_all_kinds_agree() -> None:
    picture = Image.fromarray(PIXELS)
    tensor = torch.from_numpy(PIXELS / np.float32(255)).permute(2, 0, 1)
    kinds = [picture, PIXELS, PIXELS[None], PIXELS / 255, tensor, tensor[None], tensor.double()]
    for image in io.as_tensors(kinds):
        assert image.shape == (1, 3, 16, 20) and image.dtype == torch.float32
        torch.testing.assert_close(image, tensor[None], rtol=0, atol=1e-7)


def test_batches_are_split_and_lists_flattened() -> None:
    assert len(io.as_tensors([PIXELS, np.stack([PIXELS, PIXELS])])) == 3
    assert io.as_tensors([]) == []


def test_grey_and_rgba_arrays_are_taken_as_files_are() -> None:
    grey, alpha = PIXELS[..., 0], PIXELS[..., 1]
    for image in (grey, grey[..., None], grey[None, ..., None], grey / 255):
        (found,) = io.as_tensors(image)
        torch.testing.assert_close(found, io.to_tensor(Image.fromarray(grey)), rtol=0, atol=1e-6)
    rgba = np.concatenate([PIXELS, alpha[..., None]], axis=-1)
    for image in (rgba, rgba[None], rgba / 255):
        (found,) = io.as_tensors(image)
        torch.testing.assert_close(found, io.to_tensor(Image.fromarray(rgba)), rtol=0, atol=1.01 / 255)


def test_an_array_turned_from_bgr_is_taken() -> None:
    (found,) = io.as_tensors((PIXELS / np.float32(255))[..., ::-1])
    torch.testing.assert_close(found, io.as_tensors(PIXELS)[0].flip(1))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((16, 20, 2), np.uint8), r"array of shape \(16, 20, 2\) and type uint8; expected \(H,W\)"),
        (np.zeros((3, 16, 20), np.uint8), r"array of shape \(3, 16, 20\)"),
        (np.zeros((16, 20, 3), np.uint16), "type uint16"),
        (np.zeros((16, 20, 3), bool), "type bool"),
        (np.full((16, 20, 4), 128.0), r"from 128 to 128; expected RGB in \[0,1\]"),
        ("photo.jpg", "is a str; pass a PIL image"),
        (None, "is a NoneType"),
        (torch.zeros(16, 16), r"shape \(16, 16\)"),
        (torch.zeros(1, 1, 16, 16), r"expected floats \(B,3,H,W\)"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), "type torch.uint8"),
        (torch.full((3, 16, 16), 128.0), r"from 128 to 128; expected RGB in \[0,1\]"),
        (torch.full((3, 16, 16), torch.nan), "from nan to nan"),
    ],
)
def test_others_are_refused(image: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        io.as_tensors(image)


def test_sheet_shows_central_squares_of_any_size(tmp_path: Path) -> None:
    wide = torch.zeros(3, 8, 32)
    wide[:, :, 12:20] = 200.6
    small = torch.full((3, 4, 6), 300.0)
    io.contact_sheet(tmp_path / "sheet.png", [[wide, small], [small, wide]], side=8)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (16, 16)
        assert [image.getpixel(at)[0] for at in ((0, 0), (7, 7), (8, 0), (15, 7))] == [201, 201, 255, 0]
        assert [image.getpixel(at)[0] for at in ((0, 8), (15, 15))] == [255, 201]
