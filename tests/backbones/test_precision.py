"""A model of 16 bits runs in float32 for a while, and is itself again afterwards."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from fluxsr.backbones.precision import in_float32

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_come_back_with_their_values(dtype: torch.dtype) -> None:
    layer = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)).to(dtype)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(ZeroDivisionError), in_float32(layer, device=CPU):
        assert layer(torch.ones(2, 4)).dtype == torch.float32
        raise ZeroDivisionError
    after = layer.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == dtype for name, value in before.items())


def test_quantized_and_offloaded_modules_are_left_alone() -> None:
    quantized, offloaded = nn.Linear(4, 4, dtype=torch.bfloat16), nn.Linear(4, 4, dtype=torch.float16, device="meta")
    quantized.register_buffer("codes", torch.zeros(4, dtype=torch.uint8))
    with in_float32(quantized, offloaded, device=CPU):
        assert (quantized.weight.dtype, offloaded.weight.dtype) == (torch.bfloat16, torch.float16)


def test_a_step_in_float32_is_finer(pipeline: Any) -> None:
    half = deepcopy(pipeline).to(torch.bfloat16)
    up = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    coarse, fine, exact = half.one_step(up), half.one_step(up, exact=True), pipeline.one_step(up)
    assert (fine - exact).abs().mean() < (coarse - exact).abs().mean()
    assert torch.equal(half.one_step(up), coarse) and half.dtype == torch.bfloat16
