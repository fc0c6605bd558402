"""What depends on a place in its token alone goes; what moves with the picture stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fluxsr.extensions.patch_offsets import OFFSETS, mean_over_offsets


def latent(seed: int = 0, height: int = 12, width: int = 8) -> Tensor:
    return torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(seed))


def by_token(z: Tensor) -> Tensor:
    """The mean of each token, at each of its places: depends on the cut."""
    means = torch.nn.functional.avg_pool2d(z, 2)
    return means.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_one_cut_is_the_call_itself() -> None:
    z = latent()
    assert torch.equal(mean_over_offsets(by_token, z, 1), by_token(z))


@pytest.mark.parametrize("offsets", [1, 2, 4])
def test_what_knows_no_tokens_is_left_as_it_is(offsets: int) -> None:
    z = latent()
    torch.testing.assert_close(mean_over_offsets(lambda latents: 3 * latents, z, offsets), 3 * z)


def test_over_all_cuts_the_result_moves_with_the_picture() -> None:
    """By one latent, half a token; with one cut it does not."""
    z = latent(height=20, width=20)
    for offsets, alike in ((1, False), (4, True)):
        here, there = (mean_over_offsets(by_token, image, offsets) for image in (z, z.roll((1, 1), (2, 3))))
        inner = (..., slice(3, -3), slice(3, -3))
        assert torch.allclose(here.roll((1, 1), (2, 3))[inner], there[inner], atol=1e-6) is alike


def test_a_pattern_of_the_token_is_averaged_away() -> None:
    pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])

    def patterned(z: Tensor) -> Tensor:
        return torch.zeros_like(z) + pattern.repeat(z.shape[-2] // 2, z.shape[-1] // 2)

    z = latent()
    assert float(mean_over_offsets(patterned, z, 1).abs().min()) == 1
    assert float(mean_over_offsets(patterned, z, 4).abs().max()) == 0


def test_every_cut_is_a_call_of_whole_tokens() -> None:
    seen: list[tuple[int, ...]] = []

    def call(z: Tensor) -> Tensor:
        seen.append(tuple(z.shape[-2:]))
        return z

    for offsets, places in OFFSETS.items():
        seen.clear()
        mean_over_offsets(call, latent(), offsets)
        assert len(seen) == offsets == len(places)
        assert all(height % 2 == 0 and width % 2 == 0 for height, width in seen)
    assert seen == [(12, 8), (12, 10), (14, 8), (14, 10)]
