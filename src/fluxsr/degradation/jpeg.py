"""JPEG compression and decompression of a batch, with a separate quality for each image.

This is baseline JPEG with libjpeg's defaults: 8-bit YCbCr (BT.601, full range), chroma halved in both directions
(4:2:0), tables of ITU-T T.81 annex K scaled by quality, and "fancy" (triangle) chroma upsampling. Entropy coding is
lossless and is omitted. The operation is not differentiable.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# fmt: off
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61,      12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,      14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,  72, 92, 95, 98, 112, 100, 103, 99,
)
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99,      18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,      47, 66, 99, 99, 99, 99, 99, 99,
) + (99,) * 32
_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
# fmt: on


def quantisation_tables(quality: Tensor) -> tuple[Tensor, Tensor]:
    """Return the luma and chroma tables of the Independent JPEG Group at each quality, each (B, 64) in 1..255.

    Args:
        quality: whole numbers 1..100, (B,).
    """
    quality = quality.float().round().clamp(1, 100)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)

    def scaled(base: tuple[int, ...]) -> Tensor:
        table = torch.tensor(base, dtype=torch.float32, device=quality.device)
        return ((table * percent[:, None] + 50) / 100).floor().clamp(1, 255)

    return scaled(_LUMA), scaled(_CHROMA)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress images; the result has the same shape and lies on the 8-bit grid.

    Args:
        images: (B, 3, H, W) in [0, 1] with any H, W >= 1; rounded to 8 bits first.
        quality: 1..100 as in Pillow, (B,); rounded to whole numbers.
    """
    height, width = images.shape[-2:]
    luma_table, chroma_table = quantisation_tables(quality.to(images.device))
    rgb = (images.float().clamp(0, 1) * 255).round()
    ycc = torch.einsum("kc,bchw->bkhw", torch.tensor(_TO_YCBCR).to(rgb), rgb)
    ycc[:, 1:] += 128
    ycc = ycc.round().clamp(0, 255)

    luma = _quantise(ycc[:, :1], luma_table)
    chroma = _quantise(_halve(ycc[:, 1:]), chroma_table)
    chroma = _double(chroma[..., : (height + 1) // 2, : (width + 1) // 2])[..., :height, :width]
    ycc = torch.cat([luma, chroma - 128], 1)
    rgb = torch.einsum("kc,bchw->bkhw", torch.tensor(_TO_RGB).to(ycc), ycc)
    return rgb.round().clamp(0, 255) / 255


def _halve(chroma: Tensor) -> Tensor:
    """Average 2x2 pixels. As in libjpeg, columns are repeated to whole blocks before that, and rows after it."""
    mean = F.avg_pool2d(_repeat_edge(chroma, 2, 16), 2)  # (B, 2, ceil(H / 2), 8 ceil(W / 16))
    # libjpeg alternately rounds halves down and up along a row, so that they do not add up to a tint.
    turn = torch.arange(mean.shape[-1], device=mean.device) % 2
    return (mean + 0.25 + 0.25 * turn).floor()


def _double(chroma: Tensor) -> Tensor:
    """Double the size with libjpeg's triangle filter (bilinear with half-pixel centres) and round to 8-bit values."""
    if chroma.shape[-1] <= 2:  # too narrow for the filter, so libjpeg repeats pixels
        return F.interpolate(chroma, scale_factor=2, mode="nearest")
    exact = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)  # sixteenths
    turn = torch.arange(exact.shape[-1], device=exact.device) % 2
    return (exact + (8 - turn) / 16).floor()  # alternately rounds halves up and down


def _repeat_edge(images: Tensor, rows: int, columns: int) -> Tensor:
    """Repeat the last row and column until the sides are multiples of `rows` and `columns`."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % columns, 0, -height % rows), mode="replicate")


def _cosines(device: torch.device) -> Tensor:
    """Return the orthonormal 8x8 DCT-II as one matrix, (64 frequencies, 64 pixels)."""
    k = torch.arange(8, dtype=torch.float64)
    rows = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
    rows[0] /= math.sqrt(2)
    return torch.kron(rows, rows).float().to(device)


def _quantise(planes: Tensor, table: Tensor) -> Tensor:
    """Quantise the DCT coefficients of 8x8 blocks with a table, and return the decoded 8-bit values.

    Args:
        planes: (B, C, H, W) in 0..255.
        table: (B, 64), in row-major order.
    """
    height, width = planes.shape[-2:]
    padded = _repeat_edge(planes, 8, 8) - 128
    b, c, h, w = padded.shape
    blocks = padded.view(b, c, h // 8, 8, w // 8, 8).transpose(3, 4).reshape(b, -1, 64)
    cosines = _cosines(planes.device)
    step = table[:, None]  # (B, 1, 64)
    # libjpeg has coefficients to 1/8 and rounds halves away from 0, and block means are often halves.
    eighths = (blocks @ cosines.T * 8).round()
    level = (eighths.abs() / (8 * step) + 0.5).floor() * eighths.sign()
    blocks = level * step @ cosines
    planes = blocks.view(b, c, h // 8, w // 8, 8, 8).transpose(3, 4).reshape(b, c, h, w)
    # Round halves up. The matrix product may give slightly less than a half, as for a flat block of step 28.
    return ((planes + 0.501).floor() + 128).clamp(0, 255)[..., :height, :width]
