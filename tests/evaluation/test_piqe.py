"""PIQE: values recorded from pyiqa 0.1.16, and bounds."""

from __future__ import annotations

import pytest
import torch

from fluxsr.errors import InputError
from fluxsr.evaluation.piqe import piqe


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ((0, 176, 192), (13.260898, 38.102947)),
        ((1, 181, 203), (11.455345, 33.172596)),  # sides that are no multiples of the block
        ((2, 288, 304), (20.162872, 35.194717)),
    ],
)
def test_recorded_values(pair, arguments, values):
    assert [float(piqe(image)[0]) for image in pair(*arguments)] == pytest.approx(values, abs=2e-3)


def test_values_are_per_image(pair):
    sr, hr = pair(0, 64, 64)
    assert piqe(torch.cat([sr, hr])).tolist() == pytest.approx([float(piqe(sr)[0]), float(piqe(hr)[0])])


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_an_image_without_active_blocks_has_the_worst_value(level):
    assert float(piqe(torch.full((1, 3, 32, 32), level))[0]) == 100


def test_small_images_are_refused():
    with pytest.raises(InputError, match="16 pixels"):
        piqe(torch.zeros(1, 3, 15, 40))
