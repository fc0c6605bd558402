"""Screening: what makes an image flat, blurred or broken, and that training leaves it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.backbones import latents
from fluxsr.pairs.screen import Measures, measure, screen
from fluxsr.pairs.store import PairStore, TeacherPair

LIMITS = Measures(flat=0.8, detail=0.1, clipped=0.3)


def texture(contrast: float = 0.2) -> Tensor:
    noise = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    return 0.5 + contrast * noise.mean(0, keepdim=True).expand(3, -1, -1)


def blurred(image: Tensor) -> Tensor:
    return F.avg_pool2d(F.avg_pool2d(image[None], 9, 1, 4), 9, 1, 4)[0]


def test_texture_is_neither_flat_nor_blurred() -> None:
    found = measure(texture())
    assert found.flat == 0 and found.detail > 0.5 and found.clipped < 0.01
    assert measure(texture(0.05)).detail == pytest.approx(found.detail, rel=0.05), "contrast does not count"


def test_blur_takes_the_detail_and_leaves_the_contrast() -> None:
    soft = blurred(texture(1.0))
    assert measure(soft).detail < LIMITS.detail and measure(soft).flat < LIMITS.flat


def test_a_sharp_half_is_enough() -> None:
    """A blurred background, as behind a portrait, is no fault."""
    image = texture()
    image[:, :, :64] = blurred(image)[:, :, :64]
    assert measure(image).detail > LIMITS.detail


def test_a_plain_image_is_flat_and_white_is_clipped() -> None:
    assert measure(torch.full((3, 64, 64), 0.5)) == Measures(1.0, 0.0, 0.0)
    assert measure(torch.ones(3, 64, 64)).clipped == 1.0


def test_dropped_pairs_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [texture(), blurred(texture(1.0)), torch.full((3, 64, 64), 0.5), torch.ones(3, 64, 64)]
    monkeypatch.setattr(latents, "decode", lambda _vae, z: images[int(z.flatten()[0])][None])
    vae: Any = torch.nn.Linear(1, 1)
    store = PairStore(tmp_path)
    values = [0.0, 1.0, 2.0, 3.0, float("nan")]
    store.write_shard(0, [TeacherPair(f"p{k}", *torch.full((2, 4, 2, 2), v)) for k, v in enumerate(values)])
    assert store.dropped() == {}
    reasons = dict(screen(store, vae, LIMITS))
    kinds = ["", "blurred", "flat", "broken", "broken"]
    assert [reason.split(":")[0] for reason in reasons.values()] == kinds
    assert store.dropped() == {name: reason for name, reason in reasons.items() if reason}
