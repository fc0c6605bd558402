"""Where a mask is 0 the output is the plain bicubic enlargement, where it is white it is the unmasked result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.imaging import io
from fluxsr.imaging.mask import as_masks, masked
from fluxsr.imaging.resize import bicubic, bicubic_rows
from fluxsr.imaging.settings import Settings
from fluxsr.options import UpscaleOptions

LR = torch.rand(1, 3, 60, 50, generator=torch.Generator().manual_seed(0))
SIZE = (240, 200)


class Fake:
    """A step that changes every pixel and its colour, and counts tiles."""

    def __init__(self) -> None:
        self.tiles = 0

    def __call__(self, lr_up: torch.Tensor, strength: float) -> torch.Tensor:
        self.tiles += len(lr_up)
        return (lr_up * 1.5 - 0.3).roll(1, -1) + torch.tensor([0.1, 0, -0.1])[:, None, None]


def run(pipeline: Any, mask: torch.Tensor | None, color_fix: Any, streamed: bool) -> tuple[np.ndarray, int]:
    step = Fake()
    how = Settings(UpscaleOptions(tile_size=64, tile_overlap=16, color_fix=color_fix), 1, None, step, mask)
    hr = torch.cat(list(pipeline.upscale_streaming(LR, how)[1]), -2) if streamed else pipeline.upscale_tensor(LR, how)
    return np.asarray(io.to_pil(hr)), step.tiles


@pytest.mark.parametrize("sides", [(60, 50), (240, 200), (480, 400), (15, 10)])
@pytest.mark.parametrize(
    ("color_fix", "streamed"),
    [("wavelet", False), ("wavelet", True), ("none", False), ("none", True), ("adain", False)],
)
def test_plain_where_0_and_to_the_byte_the_result_where_white(
    pipeline: Any, color_fix: str, streamed: bool, sides: tuple[int, int]
) -> None:
    mask = torch.zeros(1, 1, *sides)
    mask[..., : sides[0] // 3, :] = 1  # down to row 80 of the output
    full, tiles = run(pipeline, None, color_fix, streamed)
    out, run_tiles = run(pipeline, mask, color_fix, streamed)
    plain = np.asarray(io.to_pil(bicubic_rows(LR, SIZE, 0, 240) if streamed else bicubic(LR, SIZE)))
    reach = 2 * max(1, 240 // sides[0])  # of the kernel that scales the mask
    assert np.array_equal(out[: 80 - reach], full[: 80 - reach])
    assert np.array_equal(out[80 + reach :], plain[80 + reach :])
    low, high = np.minimum(full, plain).astype(int), np.maximum(full, plain).astype(int)
    assert ((low - 1 <= out) & (out <= high + 1)).all(), "no seam: every pixel lies between the two"
    assert run_tiles == tiles if color_fix == "adain" else run_tiles < tiles


def test_in_between_it_is_linear(pipeline: Any) -> None:
    full, _ = run(pipeline, None, "wavelet", False)
    plain = np.asarray(io.to_pil(bicubic(LR, SIZE))).astype(float)
    out, _ = run(pipeline, torch.full((1, 1, 9, 9), 51 / 255), "wavelet", False)
    assert np.abs(out - (0.8 * plain + 0.2 * full)).max() <= 1


@pytest.mark.parametrize("color_fix", ["wavelet", "adain"])
def test_without_any_white_the_model_is_not_run(pipeline: Any, color_fix: str) -> None:
    out, tiles = run(pipeline, torch.zeros(1, 1, 60, 50), color_fix, False)
    assert tiles == 0 and np.array_equal(out, np.asarray(io.to_pil(bicubic(LR, SIZE))))


def test_python_takes_a_mask_in_every_form(pipeline: Any, tmp_path: Path) -> None:
    values = np.zeros((60, 50), np.uint8)
    values[:20] = 255
    Image.fromarray(values).save(tmp_path / "mask.png")
    wanted = np.asarray(pipeline(LR, mask=values).images[0])
    grey = np.repeat(values[..., None], 3, -1)
    for mask in (
        tmp_path / "mask.png",
        Image.fromarray(values),
        Image.fromarray(np.dstack([np.full_like(grey, 255), values])),  # transparent is 0
        values > 0,
        grey,
        torch.from_numpy(values / np.float32(255))[None, None],
        [values],
    ):
        assert np.array_equal(np.asarray(pipeline(LR, mask=mask).images[0]), wanted)
    both = pipeline([LR, LR], mask=[values, np.zeros_like(values)]).images
    assert np.array_equal(np.asarray(both[0]), wanted)
    assert np.array_equal(np.asarray(both[1]), np.asarray(io.to_pil(bicubic(LR, SIZE))))


@pytest.mark.parametrize(("size", "wrap"), [((24, 32), True), ((9, 20), False)])
def test_a_mask_applies_to_images_that_are_extended(pipeline: Any, size: tuple[int, int], wrap: bool) -> None:
    lr, mask = torch.rand(1, 3, *size), torch.zeros(1, 1, *size)
    mask[..., : size[1] // 2] = 1
    options = UpscaleOptions(wrap=wrap, scale=2)
    whole, half, plain = (
        pipeline.upscale_tensor(lr, Settings(options, mask=one)) for one in (None, mask, torch.zeros_like(mask))
    )
    assert torch.equal(half[..., : size[1] - 4], whole[..., : size[1] - 4].clamp(0, 1))
    assert torch.equal(half[..., size[1] + 4 :], plain[..., size[1] + 4 :])
    inner = bicubic(lr, (2 * size[0], 2 * size[1]))[..., 8:-8, 8:-8]
    torch.testing.assert_close(plain[..., 8:-8, 8:-8], inner, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        ([np.zeros((9, 9))] * 3, "mask holds 3 masks for 2 images; pass one, or one for each image"),
        (np.full((9, 9), 2.0), r"mask has values from 2 to 2; expected \[0,1\]"),
        (np.zeros((9, 9, 5)), "mask has shape (9, 9, 5)"),
        (7, "mask is a int; pass a path"),
    ],
)
def test_an_unusable_mask_is_one_line(mask: Any, line: str) -> None:
    with pytest.raises(InputError, match=line.replace("(9, 9, 5)", r"\(9, 9, 5\)")):
        as_masks(mask, 2)


def test_photograph_and_mask_are_both_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.jpg", exif=exif)  # 20x30 as displayed
    mask = np.zeros((30, 20), np.uint8)
    mask[:, :10] = 255  # the left half
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(np.rot90(mask)).save(tmp_path / "turned.png", exif=exif)
    for name in ("mask.png", "turned.png"):
        picture = masked(io.read(tmp_path / "photo.jpg"), tmp_path / name)
        assert picture.mask is not None and picture.lr.shape[-2:] == picture.mask.shape[-2:] and not picture.notes
        assert picture.mask[..., :10].all() and not picture.mask[..., 10:].any()
    Image.fromarray(mask.T).save(tmp_path / "wide.png")
    notes = masked(io.read(tmp_path / "photo.jpg"), tmp_path / "wide.png").notes
    assert notes == ("has 20x30 pixels, but its mask 30x20, which is stretched",)
