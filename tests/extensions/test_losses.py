"""The scales at which TV-LPIPS may compare."""

from __future__ import annotations

import pytest
import torch

from fluxsr.extensions.losses import at_scale


@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_a_scale_above_one_repeats_the_pixels_of_a_part_at_one_place_in_both(scale: float) -> None:
    x = torch.arange(2 * 3 * 12 * 12.0).view(2, 3, 12, 12)
    larger, other = at_scale(x, -x, [scale], torch.Generator().manual_seed(1))
    assert larger.shape == x.shape and torch.equal(larger, -other)
    part = larger[..., :: int(scale), :: int(scale)]
    assert torch.equal(larger, part.repeat_interleave(int(scale), 2).repeat_interleave(int(scale), 3))
    assert (part.diff(dim=3) == 1).all() and (part.diff(dim=2) == 12).all(), "neighbours stay neighbours"


def test_a_scale_below_one_averages_blocks_and_one_changes_nothing() -> None:
    x, generator = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.Generator()
    smaller, _ = at_scale(x, x, [0.5], generator)
    torch.testing.assert_close(smaller, x.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5)))
    assert at_scale(x, x, [1.0], generator)[0] is x


def test_among_several_scales_one_cuts_off_the_same_few_pixels_in_both() -> None:
    x = torch.arange(64 * 64.0).view(1, 1, 64, 64)
    places = set()
    for k in range(40):
        part, other = at_scale(x, -x, [1.0, 1.0], torch.Generator().manual_seed(k))
        assert torch.equal(part, -other) and torch.equal(part, x[..., -part.shape[-2] :, -part.shape[-1] :])
        places.add(64 - part.shape[-1])
    assert len(places) > 8 and max(places) <= 15


def test_scales_are_drawn_by_the_generator() -> None:
    x = torch.zeros(1, 3, 8, 8)
    shapes = {at_scale(x, x, [0.5, 1.0], torch.Generator().manual_seed(k))[0].shape[-1] for k in range(20)}
    assert shapes == {4, 8}
