"""NIQE and PIQE: values recorded from pyiqa 0.1.16, the fitted model, and what cannot be measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.evaluation.niqe import PristineModel, blocks, fit, grey, niqe, normalise, read_model, save_model
from fluxsr.evaluation.piqe import piqe


@pytest.fixture
def model() -> PristineModel:
    """A model that no photographs have, made of closed forms; pyiqa was given the same."""
    mean = np.linspace(0.3, 1.2, 36)
    covariance = 0.02 * np.eye(36) + 0.01 * np.outer(mean, mean)
    return PristineModel(torch.from_numpy(mean), torch.from_numpy(covariance))


def in_grey(image: Tensor) -> Tensor:
    """Channel 0 thrice: no luma lies halfway between two steps, where rounding is a matter of taste."""
    return image[:, :1].expand(-1, 3, -1, -1)


def test_recorded_values_of_niqe(pair, model):
    sr, hr = pair(2, 288, 304)
    found = [float(niqe(in_grey(image), model)[0]) for image in (sr, hr)]
    assert found == pytest.approx([24.079631, 25.034523], abs=1e-4)
    found = [float(niqe(image, model)[0]) for image in (sr, hr)]
    assert found == pytest.approx([21.967433, 24.982976], abs=2e-2)
    assert niqe(torch.cat([sr, hr]), model).tolist() == pytest.approx(found)


@pytest.mark.slow
def test_only_sharp_blocks_are_fitted(pair):
    images = [pair(seed, 288, 384)[1] for seed in range(8)]
    half_flat = [image.clone() for image in images]
    for image in half_flat:
        image[..., 192:] = 0.5 + 0.2 * (image[..., 192:] - 0.5)
    kept = [image[..., :192] for image in images]
    assert not torch.equal(fit(images).mean, fit(half_flat).mean)
    torch.testing.assert_close(fit(half_flat).mean, fit(kept).mean, rtol=0.05, atol=0.02)


def test_what_is_too_little_is_said(pair, model):
    with pytest.raises(InputError, match="two blocks of 96x96 pixels or more, got 190x190"):
        niqe(torch.rand(1, 3, 190, 190), model)
    with pytest.raises(InputError, match="sharp blocks are too few"):
        fit([pair(0, 192, 192)[1]])


def test_a_flat_image_has_no_value(model):
    assert niqe(torch.full((1, 3, 192, 192), 0.5), model).isnan().all()


def test_a_saved_model_is_read_back(tmp_path, model):
    save_model(model, tmp_path / "own.npz")
    again = read_model(tmp_path / "own.npz")
    assert torch.equal(again.mean, model.mean) and torch.equal(again.covariance, model.covariance)


@pytest.mark.parametrize("suffix", [".npz", ".mat"])
@pytest.mark.parametrize("stem", ["pris_param", "prisparam"])
def test_both_spellings_and_formats(tmp_path, suffix, stem):
    from scipy import io

    path = tmp_path / f"niqe{suffix}"
    arrays = {f"mu_{stem}": np.ones((1, 36)), f"cov_{stem}": np.eye(36)}
    np.savez(path, **arrays) if suffix == ".npz" else io.savemat(path, arrays)
    found = read_model(path)
    assert found.mean.shape == (36,) and found.covariance.shape == (36, 36)


def test_wrong_files_are_refused(tmp_path, uninstall):
    with pytest.raises(InputError, match=r"no such NIQE parameter file.*fit-niqe"):
        read_model(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", weights=np.ones(3))
    with pytest.raises(InputError, match="lacks mu_pris_param"):
        read_model(tmp_path / "other.npz")
    np.savez(tmp_path / "short.npz", mu_pris_param=np.ones(3), cov_pris_param=np.eye(3))
    with pytest.raises(InputError, match="not NIQE's 36"):
        read_model(tmp_path / "short.npz")
    (tmp_path / "text.npz").write_text("not a matrix")
    with pytest.raises(InputError, match=r"text\.npz is no"):
        read_model(tmp_path / "text.npz")
    (tmp_path / "text.mat").write_text("not a matrix")
    with pytest.raises(InputError, match=r"text\.mat"):
        read_model(tmp_path / "text.mat")
    uninstall("scipy")
    with pytest.raises(InputError, match=r'text\.mat: a .mat file needs scipy; pip install "fluxsr\[eval\]"'):
        read_model(tmp_path / "text.mat")


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ((0, 176, 192), (13.260898, 38.102947)),
        ((1, 181, 203), (11.455345, 33.172596)),  # sides that are no multiples of the block
        ((2, 288, 304), (20.162872, 35.194717)),
    ],
)
def test_recorded_values_of_piqe(pair, arguments, values):
    assert piqe(torch.cat(pair(*arguments))).tolist() == pytest.approx(values, abs=2e-3)


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_an_image_without_active_blocks_has_the_worst_value(level):
    assert float(piqe(torch.full((1, 3, 32, 32), level))[0]) == 100


def test_small_images_are_refused():
    with pytest.raises(InputError, match="16 pixels"):
        piqe(torch.zeros(1, 3, 15, 40))


def test_grey_of_colours():
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]).T[None, :, None]
    assert grey(colours)[0, 0].tolist() == pytest.approx([0.299, 0.587, 0.114, 1])


def test_flat_areas_have_no_contrast_and_an_offset_changes_nothing():
    flat, deviation = normalise(torch.full((1, 20, 20), 77.0, dtype=torch.float64))
    assert flat.abs().max() < 1e-4 and deviation.max() < 0.1
    plane = 200 * torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(normalise(plane)[0], normalise(plane + 30)[0], atol=1e-5, rtol=0)


def test_blocks_are_cut_row_by_row():
    plane = torch.arange(5 * 7.0).view(1, 5, 7)
    cut = blocks(plane, 2)
    assert cut.shape == (1, 6, 2, 2)
    assert cut[0, 1].tolist() == [[2, 3], [9, 10]] and cut[0, 3].tolist() == [[14, 15], [21, 22]]
