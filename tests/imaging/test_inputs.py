"""Every accepted kind of image gives the same tensor; others are told what was expected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.imaging.inputs import tensors

PIXELS = np.arange(16 * 20 * 3, dtype=np.uint8).reshape(16, 20, 3)


def test_all_kinds_agree() -> None:
    picture = Image.fromarray(PIXELS)
    tensor = torch.from_numpy(PIXELS / np.float32(255)).permute(2, 0, 1)
    kinds = [picture, PIXELS, PIXELS[None], PIXELS / 255, tensor, tensor[None], tensor.double()]
    for image in tensors(kinds):
        assert image.shape == (1, 3, 16, 20) and image.dtype == torch.float32
        torch.testing.assert_close(image, tensor[None], rtol=0, atol=1e-7)


def test_batches_are_split_and_lists_flattened() -> None:
    assert len(tensors([PIXELS, np.stack([PIXELS, PIXELS])])) == 3
    assert tensors([]) == []


@pytest.mark.parametrize(
    ("image", "words"),
    [
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
        tensors(image)
