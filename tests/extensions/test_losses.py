"""The terms that the extensions add to a stage, and the scales at which TV-LPIPS may compare."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fluxsr.extensions.losses import at_scale, build_critics, extra_terms


def test_terms_are_off_by_default_and_named_when_on() -> None:
    off = SimpleNamespace(periodic_weight=0.0, adversarial_weight=0.0, adversarial_start=0)
    x, y, z = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.rand(2, 8, 4, 4)
    cpu = torch.device("cpu")
    assert build_critics(0, cpu, None) == {}
    assert extra_terms(off, {}, 5, (x, y), 8, (z, z)) == {}
    on = SimpleNamespace(periodic_weight=1.0, adversarial_weight=1.0, adversarial_start=0)
    critics = build_critics(0, cpu, [4, 4], latent_widths=[4, 4], latent_channels=8)
    assert list(extra_terms(on, critics, 0, (x, y), 8, (z, z), 1.0)) == [
        *("periodic", "critic", "adversarial", "latent_critic", "latent_adversarial")
    ]
    assert list(extra_terms(on, critics, -1, None, 8, (z, z), 1.0)) == ["latent_critic"]


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


def test_scales_are_drawn_by_the_generator() -> None:
    x = torch.zeros(1, 3, 8, 8)
    shapes = {at_scale(x, x, [0.5, 1.0], torch.Generator().manual_seed(k))[0].shape[-1] for k in range(20)}
    assert shapes == {4, 8}
