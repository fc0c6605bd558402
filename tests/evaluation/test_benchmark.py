"""Folders in, table out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.evaluation import markdown, score_folders, to_json
from fluxsr.evaluation.benchmark import list_images, load_image


def test_scores_are_means_over_images_matched_by_stem(folders):
    report = score_folders(*folders, optional=False)
    assert list(report.per_image) == ["a", "b"]
    assert report.mean["psnr"] == pytest.approx((30.54653 + 30.497017) / 2, abs=1e-5)
    # The mean spectrum's peak, not the mean of peaks.
    assert report.mean["peak16"] < (11.299108 + 12.905133) / 2
    assert "peak16" not in report.per_image["a"]


def test_only_some_images(folders):
    report = score_folders(*folders, only=["b"], optional=False, name="some")
    assert list(report.per_image) == ["b"] and report.name == "some"
    assert report.mean["peak16"] == pytest.approx(12.905133, abs=1e-5)


def test_without_ground_truth_only_no_reference_columns_are_left(folders):
    report = score_folders(folders[0], optional=False)
    assert set(report.mean) == {"grid4", "grid8", "grid16", "peak16"}


def test_the_border_counts_or_not(folders):
    whole, inner = (score_folders(*folders, optional=False, crop=crop) for crop in (0, 4))
    assert whole.mean["psnr"] != inner.mean["psnr"]
    assert whole.mean["grid4"] == inner.mean["grid4"]


def test_one_table_of_several_reports(folders):
    reports = [
        score_folders(*folders, optional=False, name="full"),
        score_folders(folders[1], optional=False, name="HR"),
    ]
    head, rule, full, hr = markdown(reports).splitlines()
    assert head.startswith("| name | n | psnr | ssim | psnr_rgb | mid_db")
    assert head.count("|") == rule.count("|") == full.count("|") == hr.count("|")
    assert full.startswith("| full | 2 | 30.52 | 0.7295 |")
    assert hr.startswith("| HR | 2 | - | - |")
    rows = json.loads(to_json(reports))
    assert [row["name"] for row in rows] == ["full", "HR"]
    assert rows[0]["per_image"]["a"]["psnr"] == pytest.approx(30.5465)


def test_the_optional_metrics_join_the_table(folders):
    pytest.importorskip("piq")
    report = score_folders(*folders, only=["a"])
    assert report.mean["fsim"] == pytest.approx(0.870335, abs=1e-4)


def test_pixels_are_rgb_in_0_1(folders):
    image = load_image(folders[0] / "a.png")
    assert image.shape == (1, 3, 176, 192) and image.dtype == torch.float64
    assert image.min() >= 0 and image.max() <= 1


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32768, 65535]] * 2, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png") * 255
    assert image.shape == (1, 3, 2, 4) and image[0, 1, 0].tolist() == pytest.approx([0, 1, 128, 255])


def test_pixels_without_a_known_white_are_refused_by_name(tmp_path):
    Image.fromarray(np.full((4, 4), 300, dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"cannot read .*a\.tif: floating-point pixels"):
        load_image(tmp_path / "a.tif")


def test_what_is_wrong_is_said(folders, tmp_path):
    sr, hr = folders
    with pytest.raises(InputError, match="no such folder"):
        score_folders(tmp_path / "absent")
    with pytest.raises(InputError, match=r"1 of 2 images are not in .*: c"):
        score_folders(sr, hr, only=["a", "c"])
    (hr / "b.bmp").rename(hr / "c.bmp")
    with pytest.raises(InputError, match="not in .*hr: b"):
        score_folders(sr, hr, optional=False)
    (sr / "b.png").rename(sr / "c.png")
    (sr / "a.png").rename(sr / "b.png")
    (sr / "c.png").rename(sr / "a.png")
    with pytest.raises(InputError, match="a: SR is 203x181, HR is 192x176"):
        score_folders(sr, hr, only=["a"], optional=False)
    (sr / "a.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="two images of one stem"):
        list_images(sr)
    (sr / "a.png").unlink()
    with pytest.raises(InputError, match=r"cannot read .*a\.jpg"):
        score_folders(sr)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no images in"):
        list_images(tmp_path)
