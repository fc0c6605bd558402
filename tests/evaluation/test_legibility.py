"""Legibility by RapidOCR, and by hand."""

from __future__ import annotations

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from fluxsr.evaluation.legibility import legibility_function, share_read


def test_the_share_is_of_characters_in_order():
    assert float(share_read(["STOP", "x"], ["STOP", "AB"])) == pytest.approx(4 / 6)
    assert float(share_read(["ST0P"], ["STOP"])) == 0.75
    assert share_read(["anything"], [""]).isnan(), "what ground truth does not show cannot be read"


@pytest.mark.slow  # needs the extra ocr
def test_text_is_read_and_blurred_text_is_not():
    pytest.importorskip("rapidocr_onnxruntime")
    image = Image.new("RGB", (400, 160), "white")
    ImageDraw.Draw(image).text((30, 50), "FLOW 2025", "black", ImageFont.load_default(48))
    blurred = image.resize((20, 8), Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)
    hr, sr, empty = (
        torch.frombuffer(bytearray(one.tobytes()), dtype=torch.uint8).view(1, 160, 400, 3).permute(0, 3, 1, 2) / 255
        for one in (image, blurred, Image.new("RGB", (400, 160), "white"))
    )
    score = legibility_function()
    assert float(score(hr, hr)) == 1 and float(score(sr, hr)) < 0.5
    assert score(hr, empty).isnan()
