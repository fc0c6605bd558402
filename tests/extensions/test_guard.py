"""The guard notices broken tiles, repairs them in order, and leaves good ones as they are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from fluxsr.errors import ModelError
from fluxsr.extensions import guard
from fluxsr.extensions.guard import Guard, faults, repair_notes
from fluxsr.imaging.resize import bicubic
from fluxsr.imaging.tiling.plan import TilingPlan
from fluxsr.options import REPAIRED

PLAN = TilingPlan(256, 2, 32, 16)


@pytest.fixture(autouse=True)
def _only_finite() -> None:
    """Every check is on here."""


@pytest.fixture
def up() -> Tensor:
    """Two tiles of plain enlargements with coarse and fine structure."""
    noise = torch.Generator().manual_seed(0)
    coarse = bicubic(torch.rand(2, 3, 8, 8, generator=noise), (256, 256))
    fine = bicubic(torch.rand(2, 3, 64, 64, generator=noise), (256, 256))
    return (0.6 * coarse + 0.3 * fine).clamp(0, 1)


def good(up: Tensor, strength: float = 1.0, *, exact: bool = False) -> Tensor:
    """A model that adds fine detail."""
    return up + 0.02 * torch.randn(up.shape, generator=torch.Generator().manual_seed(1))


def dots(up: Tensor, every: int) -> Tensor:
    place = torch.arange(up.shape[-1]) % every == 0
    return good(up) + 0.3 * (place[:, None] & place)


def spoilt(up: Tensor, value: float, side: int) -> Tensor:
    result = good(up)
    result[..., 80 : 80 + side, 80 : 80 + side] = value
    return result


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ("", good),
        (guard.NOT_FINITE, lambda up: spoilt(up, float("nan"), 1)),
        (guard.NOT_FINITE, lambda up: good(up) + float("inf")),
        (guard.BLANK, torch.zeros_like),
        (guard.SHIFTED, lambda up: good(up) + torch.tensor([0.16, 0, -0.16]).view(3, 1, 1)),
        (guard.SHIFTED, lambda up: spoilt(up, 0, 32)),
        (guard.REPEATED, lambda up: dots(up, 16)),
        (guard.REPEATED, lambda up: dots(up, 2)),
        (guard.EXPLODED, lambda up: up.mean() + 2.5 * (up - up.mean())),
        (guard.PLAIN, lambda up: up),
    ],
)
def test_every_fault_is_named(up: Tensor, fault: str, broken: Any) -> None:
    output = torch.cat([broken(up)[:1], good(up)[1:]])
    expected = [fault, ""]
    if fault == guard.EXPLODED:  # stretched around the mean, a picture leaves its colours, too
        assert faults(output, up)[0] in (guard.SHIFTED, guard.EXPLODED)
    else:
        assert faults(output, up) == expected


def test_blurred_letters_that_become_sharp_are_no_fault() -> None:
    pixels = torch.arange(256)
    letters = 0.5 + 0.08 * torch.sin(pixels * 2.1) * torch.sin(pixels[:, None] * 1.3)
    up = letters.expand(1, 3, -1, -1)
    sharp = 0.5 + 2.2 * (up - 0.5)
    assert sharp.std() > 2 * up.std()
    assert faults(sharp, up) == [""]
    assert faults(0.5 + 6 * (up - 0.5), up) == [guard.EXPLODED]


def test_contrast_between_patches_may_grow_by_half_and_a_little() -> None:
    patches = (torch.arange(256) // guard.PATCH) % 2
    chequers = 2.0 * ((patches + patches[:, None]) % 2) - 1
    up = (0.5 + 24 / 255 * chequers).expand(1, 3, -1, -1)
    assert faults(0.5 + 1.7 * (up - 0.5), up) == [""]
    assert faults(0.5 + 2 * (up - 0.5), up) == [guard.EXPLODED]


@pytest.mark.parametrize(("levels", "fault"), [(8, ""), (30, guard.REPEATED)])
def test_a_faint_pattern_of_the_patches_is_no_lattice(up: Tensor, levels: float, fault: str) -> None:
    wave = torch.sin(torch.arange(256) * (2 * torch.pi / guard.PATCH))
    assert faults(good(up) + levels / 255 * wave, up) == [fault, fault]


def test_a_flat_input_and_no_step_may_stay_as_they_are(up: Tensor) -> None:
    assert faults(up, up, strength=0) == ["", ""]
    flat = torch.full_like(up, 0.3)
    assert faults(flat, flat) == ["", ""]


@pytest.mark.parametrize(
    ("cure", "remedy"),
    [
        (lambda size, exact: exact, "done again in float32"),
        (lambda size, exact: size < 256, "done again in smaller tiles"),
        (lambda size, exact: False, "replaced by the plain enlargement"),
    ],
)
def test_a_broken_tile_is_run_again_then_smaller_then_replaced(up: Tensor, cure: Any, remedy: str) -> None:
    def step(tiles: Tensor, strength: float, *, exact: bool = False) -> Tensor:
        return good(tiles) if cure(tiles.shape[-1], exact) else spoilt(tiles, float("nan"), 8)

    found = Guard(step, 1.0, PLAN, True, repairs := Counter())(up)
    assert repairs == {(guard.NOT_FINITE, remedy): 2} and found.isfinite().all()
    assert remedy != "replaced by the plain enlargement" or torch.equal(found, up)
    assert repair_notes(repairs) == [f"{REPAIRED}: 2 not finite, {remedy}"]


def test_float32_without_room_is_skipped(up: Tensor) -> None:
    def step(tiles: Tensor, strength: float, *, exact: bool = False) -> Tensor:
        if exact and tiles.shape[-1] == 256:
            raise torch.OutOfMemoryError
        return good(tiles) if exact else 0 * tiles

    Guard(step, 1.0, PLAN, True, repairs := Counter())(up)
    assert [remedy for _, remedy in repairs] == ["done again in smaller tiles"]


def test_good_tiles_stay_what_they_are(up: Tensor) -> None:
    def step(tiles: Tensor, strength: float, *, exact: bool = False) -> Tensor:
        return torch.cat([0 * tiles[:1], good(tiles)[1:]]) if len(tiles) == 2 else good(tiles)

    assert torch.equal(Guard(good, 1.0, PLAN, True, Counter())(up), good(up))
    assert torch.equal(Guard(step, 1.0, PLAN, True, Counter())(up)[1], good(up)[1])


def test_without_the_guard_only_values_that_are_not_finite_are_an_error(up: Tensor) -> None:
    assert not Guard(lambda tiles, strength: 0 * tiles, 1.0, PLAN, True, None)(up).any()
    with pytest.raises(ModelError, match="not finite; try --dtype fp32"):
        Guard(lambda tiles, strength: tiles / 0, 1.0, PLAN, True, None)(up)
