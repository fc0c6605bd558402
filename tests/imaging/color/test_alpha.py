"""Transparent pixels get their neighbours' colours, and nothing else changes."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxsr.imaging.picture import bleed_alpha, over_white
from fluxsr.imaging.resize import bicubic


def test_an_edge_has_no_dark_fringe() -> None:
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., :16] = 1
    colours = torch.full((1, 3, 32, 32), 0.8) * alpha  # black where nothing is seen
    assert bicubic(colours, (128, 128))[..., 63].min() < 0.75, "as it is, the enlargement mixes the two"
    assert (bleed_alpha(colours, alpha) - 0.8).abs().max() < 1e-6


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 37), st.integers(1, 37), st.integers(0, 1000), st.floats(0.01, 0.99))
def test_visible_pixels_stay_and_the_others_lie_between_them(height: int, width: int, seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    colours = torch.rand(1, 3, height, width, generator=generator)
    alpha = torch.rand(1, 1, height, width, generator=generator)
    alpha = torch.where(alpha < share, 0, alpha)
    found = bleed_alpha(colours, alpha)
    seen = (alpha > 0).expand_as(colours)
    assert torch.equal(found[seen], colours[seen])
    if seen.any():
        for channel in range(3):
            values = colours[0, channel][alpha[0, 0] > 0]
            hidden = found[0, channel]
            assert hidden.min() >= values.min() - 1e-5 and hidden.max() <= values.max() + 1e-5
    else:
        assert torch.equal(found, colours)


def test_over_white() -> None:
    assert over_white(torch.zeros(1, 3, 1, 1), torch.full((1, 1, 1, 1), 0.25)).unique().tolist() == [0.75]
