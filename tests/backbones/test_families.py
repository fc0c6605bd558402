"""Which family a model belongs to."""

from __future__ import annotations

import pytest
import torch

from fluxsr.backbones import flux1
from fluxsr.backbones.families import family_of
from fluxsr.backbones.loading import load_base
from fluxsr.errors import ModelError


def test_a_compiled_transformer_keeps_its_family() -> None:
    transformer = load_base("bundled", torch.device("cpu"), torch.float32).transformer
    compiled = torch.compile(transformer, backend="eager")
    assert family_of(compiled) is family_of(transformer)
    assert family_of(transformer).transformer is flux1.FluxTransformer2DModel


def test_a_model_of_another_class_is_named() -> None:
    with pytest.raises(ModelError, match="a Linear is of no known family; expected one of FluxTransformer2DModel"):
        family_of(torch.nn.Linear(1, 1))
