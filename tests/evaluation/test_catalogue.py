"""Metrics by name."""

from __future__ import annotations

import pytest

from fluxsr.errors import InputError
from fluxsr.evaluation.catalogue import DEFAULT, LICENCES, METRICS, NETWORKS, RUN, select_metrics


def test_the_names_that_reviewers_ask_for_are_there():
    wanted = "psnr ssim lpips lpips-alex dists musiq maniqa topiq clipiqa qalign cvvdp"
    wanted += " ms_ssim fsim vsi haarpsi gmsd mdsi dss niqe piqe"
    assert set(wanted.split()) <= set(METRICS)


def test_what_downloads_is_never_chosen_unasked():
    assert {METRICS[name].source for name in DEFAULT} == {"built in", "piq", "cvvdp"}
    assert [metric.name for metric in select_metrics(None)] == list(DEFAULT)


def test_every_metric_tells_direction_protocol_and_ideal():
    for metric in METRICS.values():
        assert metric.better in ("higher", "lower", "zero") and metric.arrow and metric.protocol
        assert (metric.ideal is not None) == metric.needs_hr, metric.name
        assert metric.source in ("built in", RUN) or metric.source in LICENCES
        assert bool(metric.model) == (metric.source in NETWORKS), metric.name


def test_what_sees_whole_images_is_not_cropped():
    assert {name for name, metric in METRICS.items() if metric.needs_hr and not metric.cropped} == {
        *("lpips", "lpips-alex", "lpips-vgg", "cvvdp", "legible")
    }
    assert METRICS["lpips"].fits(16, 16, crop=8) and not METRICS["lpips"].fits(15, 16, crop=0)


def test_chosen_are_in_the_order_of_tables_each_once():
    assert [metric.name for metric in select_metrics(["lpips", "psnr", "lpips"])] == ["psnr", "lpips"]


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(InputError, match="no metric is called 'pnsr'; did you mean 'psnr'"):
        select_metrics(["pnsr"])
    with pytest.raises(InputError, match="known are psnr, ssim"):
        select_metrics(["zzz"])
    with pytest.raises(InputError, match="no metric is called 'seconds'"):
        select_metrics(["seconds"])
    with pytest.raises(InputError, match="no metric is chosen"):
        select_metrics([])
