"""Optional packages: what they give, and what is said where they are missing."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest

from fluxsr.evaluation import image_scores
from fluxsr.evaluation.catalogue import METRICS, PIQ


def test_piq_functions_have_the_recorded_values(pair):
    recorded = {
        **{"ms_ssim": 0.939134, "fsim": 0.870335, "vsi": 0.958621, "haarpsi": 0.850374},
        **{"dss": 0.91611, "gmsd": 0.026708, "mdsi": 0.377829},
    }
    sr, hr = (image[..., 4:-4, 4:-4].float() for image in pair(0, 176, 192))
    names = [name for name, metric in METRICS.items() if metric.source == PIQ]
    found = {name: float(image_scores.piq_function(name)(sr, hr)) for name in names}
    assert found == pytest.approx(recorded, abs=1e-4)


@pytest.mark.slow  # needs the extra cvvdp, which brings torchvision
def test_cvvdp_has_the_recorded_values(pair):
    judge = image_scores.package_function(METRICS["cvvdp"])
    sr, hr = (image.float() for image in pair(0, 176, 192))
    assert float(judge(sr, hr)) == pytest.approx(9.28407, abs=1e-3)
    assert float(judge(hr, hr)) == 10


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [
        *(("piq", "fsim", "eval"), ("cvvdp", "cvvdp", "cvvdp"), ("pyiqa", "musiq", "iqa")),
        *(("lpips", "lpips-alex", "lpips"), ("rapidocr-onnxruntime", "legible", "ocr")),
    ],
)
def test_a_missing_package_is_one_clear_line(package, name, extra, monkeypatch, caplog):
    monkeypatch.setattr(image_scores, "_is_installed", lambda wanted: wanted != package)
    kept = image_scores.installed([METRICS["psnr"], METRICS[name]])
    assert [metric.name for metric in kept] == ["psnr"]
    assert len(caplog.records) == 1
    assert f'columns {name} left out: {package} is not installed (pip install "fluxsr[{extra}]")' in caplog.text


def test_cvvdp_leaves_the_root_logger_alone_and_its_failure_is_one_line(monkeypatch, caplog):
    def judge(**_):
        logging.debug("the root logger gets a handler")
        return SimpleNamespace(predict=lambda *_, **__: (logging.debug("again"), {}))

    monkeypatch.setitem(sys.modules, "pycvvdp", SimpleNamespace(cvvdp=judge))
    with monkeypatch.context() as patch:
        patch.setattr(logging.root, "handlers", [])
        image_scores.cvvdp_function()(None, None)
        assert logging.root.handlers == []
    monkeypatch.setitem(sys.modules, "pycvvdp", None)
    assert image_scores.package_function(METRICS["cvvdp"]) is None
    assert "column cvvdp left out: its package cannot be loaded" in caplog.text
