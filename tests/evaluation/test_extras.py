"""Optional packages: what they give, and what is said where they are missing."""

from __future__ import annotations

import pytest

from fluxsr.evaluation import extras
from fluxsr.evaluation.catalogue import METRICS, chosen


def test_piq_functions_have_the_recorded_values(pair):
    recorded = {
        **{"ms_ssim": 0.939134, "fsim": 0.870335, "vsi": 0.958621, "haarpsi": 0.850374},
        **{"dss": 0.91611, "gmsd": 0.026708, "mdsi": 0.377829},
    }
    sr, hr = (image[..., 4:-4, 4:-4].float() for image in pair(0, 176, 192))
    found = {key: float(metric(sr, hr)) for key, metric in extras.piq_functions(chosen(None)).items()}
    assert found == pytest.approx(recorded, abs=1e-4)


@pytest.mark.parametrize(("package", "name", "extra"), [("piq", "fsim", "eval"), ("pyiqa", "musiq", "iqa")])
def test_a_missing_package_is_one_clear_line(package, name, extra, monkeypatch, caplog):
    monkeypatch.setattr(extras, "_is_there", lambda wanted: wanted != package)
    kept = extras.installed([METRICS["psnr"], METRICS[name]])
    assert [metric.name for metric in kept] == ["psnr"]
    assert len(caplog.records) == 1
    assert f'columns {name} left out: {package} is not installed (pip install "fluxsr[{extra}]")' in caplog.text


def test_nothing_is_imported_where_nothing_needs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "piq", None)  # importing it would raise
    assert extras.piq_functions(chosen(["psnr"])) == {}
