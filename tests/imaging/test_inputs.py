"""Every accepted kind of image gives the same tensor; others are told what was expected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.imaging import io
from fluxsr.imaging.io import as_tensors

PIXELS = np.arange(16 * 20 * 3, dtype=np.uint8).reshape(16, 20, 3)


def test_all_kinds_agree() -> None:
    picture = Image.fromarray(PIXELS)
    tensor = torch.from_numpy(PIXELS / np.float32(255)).permute(2, 0, 1)
    kinds = [picture, PIXELS, PIXELS[None], PIXELS / 255, tensor, tensor[None], tensor.double()]
    for image in as_tensors(kinds):
        assert image.shape == (1, 3, 16, 20) and image.dtype == torch.float32
        torch.testing.assert_close(image, tensor[None], rtol=0, atol=1e-7)


def test_batches_are_split_and_lists_flattened() -> None:
    assert len(as_tensors([PIXELS, np.stack([PIXELS, PIXELS])])) == 3
    assert as_tensors([]) == []


def test_grey_and_rgba_arrays_are_taken_as_files_are() -> None:
    grey, alpha = PIXELS[..., 0], PIXELS[..., 1]
    for image in (grey, grey[..., None], grey[None, ..., None], grey / 255):
        (found,) = as_tensors(image)
        torch.testing.assert_close(found, io.to_tensor(Image.fromarray(grey)), rtol=0, atol=1e-6)
    rgba = np.concatenate([PIXELS, alpha[..., None]], axis=-1)
    for image in (rgba, rgba[None], rgba / 255):
        (found,) = as_tensors(image)
        torch.testing.assert_close(found, io.to_tensor(Image.fromarray(rgba)), rtol=0, atol=1.01 / 255)


def test_an_array_turned_from_bgr_is_taken() -> None:
    (found,) = as_tensors((PIXELS / np.float32(255))[..., ::-1])
    torch.testing.assert_close(found, as_tensors(PIXELS)[0].flip(1))


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
        as_tensors(image)
