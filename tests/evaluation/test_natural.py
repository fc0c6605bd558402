"""Grey, local contrast and blocks, by closed forms."""

from __future__ import annotations

import pytest
import torch

from fluxsr.evaluation.natural import blocks, grey, normalised


def test_grey_of_colours():
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]).T[None, :, None]
    assert grey(colours)[0, 0].tolist() == pytest.approx([0.299, 0.587, 0.114, 1])


def test_flat_areas_have_no_contrast_and_an_offset_changes_nothing():
    flat, deviation = normalised(torch.full((1, 20, 20), 77.0, dtype=torch.float64))
    assert flat.abs().max() < 1e-4 and deviation.max() < 0.1
    plane = 200 * torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(normalised(plane)[0], normalised(plane + 30)[0], atol=1e-5, rtol=0)


def test_blocks_are_cut_row_by_row():
    plane = torch.arange(5 * 7.0).view(1, 5, 7)
    cut = blocks(plane, 2)
    assert cut.shape == (1, 6, 2, 2)
    assert cut[0, 1].tolist() == [[2, 3], [9, 10]] and cut[0, 3].tolist() == [[14, 15], [21, 22]]
