"""Presets are sound; wrong settings say what to do."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fluxsr.degradation import PRESETS, DegradationSettings, StageSettings, load_settings
from fluxsr.errors import InputError


def test_stablesr_is_milder_than_realesrgan_where_it_differs():
    ours, theirs = (PRESETS[name] for name in ("stablesr", "realesrgan"))
    for round_ in ("first", "second"):
        a, b = getattr(ours, round_), getattr(theirs, round_)
        assert a.blur_shapes == b.blur_shapes and a.resize_prob == b.resize_prob and a.grey_prob == b.grey_prob
        for name in ("blur_sigma", "gaussian_sigma", "poisson_scale"):
            assert getattr(a, name)[1] < getattr(b, name)[1]
        assert a.jpeg_quality[0] == 60 and a.resize_range[0] == 2 * b.resize_range[0]
    assert ours.second.blur_prob == 0.5 and ours.second.jpeg_quality[1] == 100


def write(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_written_out_reads_back(tmp_path: Path, name: str):
    text = json.dumps(asdict(PRESETS[name]))  # which YAML contains
    assert load_settings(write(tmp_path, text)) == load_settings(name) == PRESETS[name]


def test_a_file_changes_what_it_names_of_its_preset(tmp_path: Path):
    path = write(tmp_path, "preset: mild\nscale: 2\nsecond: {jpeg_quality: [20, 40]}\n")
    mild = PRESETS["mild"]
    expected = replace(mild, scale=2, second=replace(mild.second, jpeg_quality=(20.0, 40.0)))
    assert load_settings(str(path)) == expected
    assert type(load_settings(path)) is DegradationSettings


def test_a_file_without_a_preset_changes_realesrgan(tmp_path: Path):
    """Also in the second round, whose values are not the defaults of StageSettings."""
    loaded = load_settings(write(tmp_path, "second: {jpeg_prob: 0.5}\nfirst:\n"))
    realesrgan = PRESETS["realesrgan"]
    assert loaded == replace(realesrgan, second=replace(realesrgan.second, jpeg_prob=0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("final_sinc_prop: 1", "did you mean 'final_sinc_prob'"),
        ("second: {jpeg_qualty: [1, 2]}", "'second.jpeg_qualty'; did you mean 'jpeg_quality'"),
        ("presett: mild", "did you mean 'preset'"),
        ("preset: wild", "preset 'wild' is not known; choose from realesrgan"),
        ("first: {blur_sigma: 2}", "first.blur_sigma is 2; expected tuple"),
        ("first: {blur_sigma: [2]}", r"first.blur_sigma is \[2\]; expected 2 values"),
        ("first: {blur_sigma: [3, 2]}", r"blur_sigma is \[3.0, 2.0\]"),
        ("first: {jpeg_quality: [0, 95]}", r"in 1..100"),
        ("first: {resize_range: [1.1, 2]}", "it must contain 1"),
        ("first: {noise_prob: 1.5}", "noise_prob is 1.5"),
        ("first: {blur_shapes: [1, 1]}", "give 6 weights"),
        ("first: {resize_prob: [0, 0, 0]}", "not all 0"),
        ("final_sinc_prob: -1", "final_sinc_prob is -1"),
        ("scale: 0", "scale"),
        ("resize_modes: [lanczos]", "lanczos"),
        ("[1]", "is a list"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, text: str, message: str):
    with pytest.raises(InputError, match=message):
        load_settings(write(tmp_path, text))


def test_neither_a_preset_nor_a_file():
    with pytest.raises(InputError, match="'wild' is not known; choose from realesrgan, stablesr, mild, bicubic, or"):
        load_settings("wild")


def test_nan_is_no_range():
    with pytest.raises(InputError, match="blur_sigma"):
        StageSettings(blur_sigma=(float("nan"), 1.0))
