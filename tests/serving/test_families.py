"""A FLUX.1 and a FLUX.2, each with an adapter of its own: both in one web server, and each in an HTTP server."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fluxsr
from fluxsr.backbones import lora
from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.backbones.prompts import load_prompt
from fluxsr.options import UpscaleOptions
from fluxsr.serving.service import UpscaleService


@pytest.fixture
def klein_adapter(klein: Any, klein_folder: Path, tmp_path: Path) -> Path:
    folder, wrapped = tmp_path / "klein-adapter", deepcopy(klein.transformer)
    torch.manual_seed(0)
    lora.add_lora(wrapped, rank=2, alpha=4)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    folder.mkdir()
    lora.save_lora(wrapped, folder, torch.float32)
    AdapterConfig(rank=2, alpha=4, t_l=0.4, train_dtype="fp32").save(folder)
    load_prompt(klein_folder).save(folder)
    return folder


@pytest.fixture
def chosen(
    model_folder: Path, make_adapter: Callable[..., Path], klein_folder: Path, klein_adapter: Path
) -> dict[str, tuple[Path, Path]]:
    """A model and its adapter of each family."""
    return {"flux1": (model_folder, make_adapter()), "flux2": (klein_folder, klein_adapter)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path := tmp_path / "in.png")
    return path


def load(model: Path, adapter: Path) -> fluxsr.FluxSRPipeline:
    return fluxsr.load(model, adapter=adapter, device="cpu", dtype="fp32")


def test_two_families_side_by_side(chosen: dict[str, tuple[Path, Path]], source: Path, tmp_path: Path) -> None:
    pipelines = {name: load(*place) for name, place in chosen.items()}
    service = UpscaleService(pipelines, max_pixels=10_000, max_output_pixels=160_000)
    results = []
    for name in (*chosen, *reversed(chosen)):
        target = tmp_path / f"{name}.png"
        found = service.upscale(service.read(source), target, UpscaleOptions(), name, lambda *_: None)
        assert found.after == (96, 64)
        alone = load(*chosen[name])(Image.open(source)).images[0]
        assert np.array_equal(np.asarray(Image.open(target)), np.asarray(alone)), name
        results.append(np.asarray(alone))
    assert not np.array_equal(results[0], results[1])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["flux1", "flux2"])
def test_a_server_process_for_each_family(
    serving: Any, chosen: dict[str, tuple[Path, Path]], source: Path, family: str
) -> None:
    model, adapter = chosen[family]
    with serving("--model", str(model), "--adapter", str(adapter)) as server:
        answer = server.client().post("/v1/upscale", files={"image": source.read_bytes()})
    alone = load(model, adapter)(Image.open(source)).images[0]
    assert np.array_equal(np.asarray(Image.open(BytesIO(answer.content))), np.asarray(alone))
