"""Draws stay in their bounds and follow the generator."""

from __future__ import annotations

import torch

from fluxsr.degradation.draws import choose, happens, whole_number


def test_whole_numbers_reach_both_ends_and_no_further():
    drawn = whole_number(500, (3, 6), torch.Generator().manual_seed(0))
    assert drawn.unique().tolist() == [3, 4, 5, 6]


def test_weights_of_zero_are_never_chosen():
    assert set(choose(200, [1, 0, 3], torch.Generator().manual_seed(0)).tolist()) == {0, 2}


def test_probabilities_of_0_and_1_are_certain():
    generator = torch.Generator().manual_seed(0)
    assert happens(200, 1.0, generator).all() and not happens(200, 0.0, generator).any()
