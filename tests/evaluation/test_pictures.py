"""Maps and windows, by images whose answer is known."""

from __future__ import annotations

import pytest
import torch

from fluxsr.errors import InputError
from fluxsr.evaluation.pictures import Window, difference_map, edge_map, where_methods_differ


def test_equal_is_white_brighter_red_darker_blue():
    hr = torch.full((1, 3, 1, 3), 0.5)
    sr = hr + torch.tensor([0.0, 0.5, -0.5])
    found = difference_map(sr, hr)[0, :, 0].T
    torch.testing.assert_close(found, torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 1]], dtype=torch.float64))


def test_an_edge_is_dark_and_the_rest_white():
    image = torch.zeros(1, 3, 6, 8)
    image[..., 4:] = 1
    found = edge_map(image)[0, 0]
    assert found[:, 3:5].max() == 0 and found[:, :3].min() == 1 and found[:, 5:].min() == 1


def test_the_window_is_where_the_versions_differ():
    one = torch.rand(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    two = one.clone()
    two[..., 40:70, 100:130] = 1 - two[..., 40:70, 100:130]
    window = where_methods_differ("a", [one, two, two], 32)
    assert 32 <= window.top <= 48 and 92 <= window.left <= 108 and window.side == 32
    assert window.spread > 10
    assert window.of(two).shape == (1, 3, 32, 32)
    assert where_methods_differ("b", [one, one], 32).spread == 0
    assert where_methods_differ("b", [one, two], 500).side == 96


def test_windows_are_ordered_by_difference():
    windows = [Window(spread, "a", 0, 0, 8) for spread in (1.0, 3.0, 2.0)]
    assert [window.spread for window in sorted(windows, reverse=True)] == [3, 2, 1]


def test_one_version_or_two_sizes_are_refused():
    image = torch.rand(1, 3, 32, 32)
    for versions in ([image], [image, image[..., :30]]):
        with pytest.raises(InputError, match="a: .* give two or more of one size"):
            where_methods_differ("a", versions, 16)
