"""What a run is scored on is known to be fit before its first step."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.imaging.photographs import DataConfig
from fluxsr.training.validation import spectral_scores, validation_pairs, validation_photographs


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


def test_a_validation_pair_is_cut_to_whole_tokens_and_stays_aligned(tmp_path: Path) -> None:
    for name, size in (("LR", (38, 34)), ("HR", (152, 136))):
        (tmp_path / name).mkdir()
        Image.new("RGB", size, (255, 0, 0)).save(tmp_path / name / "a.png")
    ((lr, hr),) = validation_pairs(str(tmp_path), 4)
    assert lr.shape == (1, 3, 32, 36) and hr.shape == (1, 3, 128, 144)
    scores = spectral_scores([hr], [hr], "val/a", lambda x, y: (x - y).abs().mean((1, 2, 3)) + x.max())
    assert scores["val/a/psnr"] == 100 and scores["val/a/lpips"] == 1.0
    Image.new("RGB", (120, 136)).save(tmp_path / "HR" / "a.png")
    Image.new("RGB", (30, 34)).save(tmp_path / "LR" / "a.png")
    with pytest.raises(InputError, match="validation pair a of .* has 120x136 pixels; .* sides of 128 pixels or more"):
        validation_pairs(str(tmp_path), 4)
