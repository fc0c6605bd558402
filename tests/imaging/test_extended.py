"""Textures continue at their edges, and small images are extended by reflection."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fluxsr.imaging.extended import Extended
from fluxsr.imaging.resize import bicubic


@pytest.mark.parametrize(("size", "result"), [((20, 33), (80, 132)), ((7, 10), (26, 37)), ((3, 1), (24, 8))])
@pytest.mark.parametrize("wrap", [False, True])
def test_the_enlargement_with_margins_is_the_enlargement(
    size: tuple[int, int], result: tuple[int, int], wrap: bool
) -> None:
    image = torch.rand(1, 3, *size)
    extended = Extended(image, result, wrap)
    assert wrap or min(extended.image.shape[-2:]) >= 16
    found = extended.cut(bicubic(extended.image, extended.size))
    assert found.shape[-2:] == result
    if wrap:  # the enlargement of three copies, of which the middle is cut out
        image, expected = image.repeat(1, 1, 3, 3), tuple(3 * side for side in result)
        middle = bicubic(image, expected)[..., result[0] : 2 * result[0], result[1] : 2 * result[1]]  # type: ignore[arg-type]
        torch.testing.assert_close(found, middle, atol=1e-5, rtol=0)


def test_an_image_that_needs_no_margin_is_not_copied() -> None:
    image = torch.rand(1, 3, 16, 40)
    assert Extended(image, (64, 160)).image is image


def test_the_two_ends_are_blended() -> None:
    def unlike(image: Tensor) -> Tensor:
        return image + torch.linspace(0, 1, image.shape[-1])  # a model that does not know that the edges meet

    extended = Extended(torch.zeros(1, 3, 64, 64), (64, 64), wrap=True)
    row = extended.cut(unlike(extended.image))[0, 0, 0]
    steps = (row - row.roll(1)).abs()
    assert steps[0] <= steps.max() < 0.05
