"""What a run is scored on is known to be fit before its first step."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.imaging.photographs import DataConfig
from fluxsr.training.validation import validation_photographs


def test_photographs_are_cut_to_whole_tokens(tmp_path: Path) -> None:
    Image.new("RGB", (150, 130)).save(tmp_path / "a.png")
    (photo,) = validation_photographs(DataConfig(validation=[str(tmp_path)]))
    assert photo.shape == (3, 128, 144)


def test_without_names_there_are_none() -> None:
    assert validation_photographs(DataConfig(validation=[])) == []


def test_one_too_small_for_its_spectrum_is_said_at_once(tmp_path: Path) -> None:
    Image.new("RGB", (200, 96)).save(tmp_path / "low.png")
    with pytest.raises(
        InputError, match=r"validation photograph low has 200x96 pixels; data.validation needs .* 128 pixels or more"
    ):
        validation_photographs(DataConfig(validation=[str(tmp_path)]))
