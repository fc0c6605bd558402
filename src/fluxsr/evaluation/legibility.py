"""Legibility: the share of characters that RapidOCR reads in a result, of those it reads in ground truth."""

from __future__ import annotations

import logging
from collections.abc import Callable
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from torch import Tensor

CONFIDENT = 0.8  # smallest confidence of a line of ground truth that counts


def legibility_function() -> Callable[[Tensor, Tensor], Tensor]:
    """Return the metric on images (1, 3, H, W), RGB in [0, 1]. An image without a legible line has NaN.

    Lines are found in ground truth alone, and both images are read there, so that only reading is compared.
    """
    from rapidocr_onnxruntime import RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.ERROR)  # it warns of every image without text
    engine: Any = RapidOCR(intra_op_num_threads=1)  # the processes already use all cores

    def score(sr: Tensor, hr: Tensor) -> Tensor:
        boxes, _ = engine(_pixels(hr), use_cls=False, use_rec=False)
        found = np.asarray(boxes or [], dtype=np.float32).reshape(-1, 4, 2)
        if not len(found):
            return torch.tensor(torch.nan)
        (ours, _), (true, _) = (engine.text_rec(engine.get_crop_img_list(_pixels(x), found)) for x in (sr, hr))
        return share_read([line[0] for line in ours], [line[0] if line[1] >= CONFIDENT else "" for line in true])

    return score


def share_read(ours: list[str], true: list[str]) -> Tensor:
    """Return the share of the characters of the true lines that our lines hold in the same order; NaN without any."""
    pairs = [SequenceMatcher(None, a, b, autojunk=False) for a, b in zip(ours, true, strict=True)]
    read = sum(block.size for pair in pairs for block in pair.get_matching_blocks())
    return torch.tensor(read / total if (total := sum(map(len, true))) else torch.nan)


def _pixels(image: Tensor) -> np.ndarray:
    """Return the image as OpenCV's libraries take it, BGR in 8 bits."""
    return np.ascontiguousarray((image[0].flip(0).permute(1, 2, 0) * 255).round().byte().numpy())
