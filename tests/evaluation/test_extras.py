"""Optional packages: what they give, and what is said where they are missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fluxsr.errors import InputError
from fluxsr.evaluation import extras


def test_piq_columns_have_the_recorded_values(pair):
    pytest.importorskip("piq")
    recorded = {
        **{"ms_ssim": 0.939134, "fsim": 0.870335, "vsi": 0.958621, "haarpsi": 0.850374},
        **{"dss": 0.91611, "gmsd": 0.026708, "mdsi": 0.377829},
    }
    sr, hr = (image[..., 4:-4, 4:-4].float() for image in pair(0, 176, 192))
    found = {key: float(metric(sr, hr)) for key, metric in extras.full_reference().items()}
    assert tuple(found) == extras.PIQ_COLUMNS
    assert found == pytest.approx(recorded, abs=1e-4)


@pytest.mark.parametrize(("package", "load"), [("piq", extras.full_reference), ("pyiqa", extras.no_reference)])
def test_a_missing_package_is_one_clear_line(package, load, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, package, None)
    assert load() == {}
    assert len(caplog.records) == 1
    assert f"{package} is not installed" in caplog.text and "pip install" in caplog.text


@pytest.mark.parametrize("suffix", [".npz", ".mat"])
@pytest.mark.parametrize("stem", ["pris_param", "prisparam"])
def test_niqe_parameters_of_both_spellings(tmp_path, suffix, stem):
    io = pytest.importorskip("scipy.io")
    path = tmp_path / f"niqe{suffix}"
    arrays = {f"mu_{stem}": np.ones((1, 36)), f"cov_{stem}": np.eye(36)}
    np.savez(path, **arrays) if suffix == ".npz" else io.savemat(path, arrays)
    mean, covariance = extras.read_niqe_params(path)
    assert mean.shape == (1, 36) and covariance.shape == (36, 36)


def test_wrong_niqe_parameters_are_refused(tmp_path):
    pytest.importorskip("scipy")
    with pytest.raises(InputError, match="no such NIQE parameter file"):
        extras.read_niqe_params(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", weights=np.ones(3))
    with pytest.raises(InputError, match="lacks mu_pris_param"):
        extras.read_niqe_params(tmp_path / "other.npz")
    (tmp_path / "text.mat").write_text("not a matrix")
    with pytest.raises(InputError, match=r"text\.mat"):
        extras.read_niqe_params(tmp_path / "text.mat")


def test_piqe_has_the_recorded_value(pair):
    pytest.importorskip("pyiqa")
    piqe = extras.no_reference()["piqe"]
    assert float(piqe(pair(0, 176, 192)[0].float())) == pytest.approx(13.260898, abs=1e-3)
