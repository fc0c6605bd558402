from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fluxsr.errors import InputError
from fluxsr.imaging.resize import bicubic
from fluxsr.options import SIZES, UpscaleOptions, declared
from fluxsr.single import load

SETTINGS = {"scale": 2.0, "strength": -1.0, "tile_size": 0, "tile_overlap": 32, "batch_size": 1, "color_fix": "wavelet"}


@pytest.fixture
def nodes(comfyui: Any) -> Any:
    from fluxsr.comfyui import nodes

    return nodes


def test_comfyui_is_given_three_nodes(nodes: Any) -> None:
    import comfy_api.latest

    from fluxsr.comfyui import custom_node

    assert custom_node.comfy_entrypoint is nodes.comfy_entrypoint
    extension = asyncio.run(nodes.comfy_entrypoint())
    assert isinstance(extension, comfy_api.latest.ComfyExtension)
    schemas = [node.define_schema() for node in asyncio.run(extension.get_node_list())]
    assert [schema.node_id for schema in schemas] == ["FluxSRConditioning", "FluxSRUpscale", "FluxSRBundled"]
    assert all(schema.display_name.startswith("FluxSR ") and schema.description for schema in schemas)


def test_ranges_and_help_are_the_declared_ones(nodes: Any) -> None:
    """A value below the range stands for what is left to the model, because a widget always holds a number."""
    widgets = {put.id: put for put in nodes.settings()}
    for name in (*SIZES, "strength", "tile_size", "tile_overlap"):
        option, unset = declared(UpscaleOptions)[name], nodes._UNSET.get(name)
        assert (widgets[name].min, widgets[name].max) == (option.minimum if unset is None else unset, option.maximum)
        assert widgets[name].tooltip.startswith(option.help)
    defaults = {put.id: put.default for put in nodes.settings() if put.default is not None}
    assert defaults.pop("scale") == 4
    unset = dict.fromkeys([*SIZES[1:], "strength", "tile_size"])
    assert nodes.chosen(**defaults) == {**unset, "tile_overlap": 32, "batch_size": 1, "wrap": False}
    assert nodes.chosen(scale=4.0, width=0, longest=100) == {"scale": None, "width": None, "longest": 100}
    assert nodes.chosen(strength=0.0, tile_size=256) == {"strength": 0.0, "tile_size": 256}
    with pytest.raises(InputError, match="tile_size is 32; choose a whole number from 64"):  # between unset and range
        nodes.FluxSRBundled.execute(torch.rand(1, 16, 24, 3), **SETTINGS | {"tile_size": 32})


def test_conditioning_offers_adapters_and_reads_the_chosen(nodes: Any, adapter: Path) -> None:
    [combo] = nodes.FluxSRConditioning.define_schema().inputs
    name = str(Path("fluxsr/tiny"))
    assert getattr(combo, "options", None) in ([name], {"options": [name]})
    [[_, extras]], strength = nodes.FluxSRConditioning.execute(name).args
    assert extras["fluxsr"].t_l == 0.3 and strength == 3.0
    with pytest.raises(InputError, match="no adapter folder"):
        nodes.FluxSRConditioning.execute("gone")
    before = nodes.FluxSRConditioning.fingerprint_inputs(name)
    assert nodes.FluxSRConditioning.fingerprint_inputs(name) == before
    os.utime(adapter / "fluxsr_config.json", ns=(1, 1))
    assert nodes.FluxSRConditioning.fingerprint_inputs(name) != before, "a replaced adapter is read again"


def test_upscale_takes_what_conditioning_gives(nodes: Any, tiny: Any, adapter: Path) -> None:
    condition, _ = nodes.FluxSRConditioning.execute(str(Path("fluxsr/tiny"))).args
    image = torch.rand(1, 16, 24, 3)
    with torch.inference_mode():  # as ComfyUI executes nodes
        [out] = nodes.FluxSRUpscale.execute(tiny.comfy_model, tiny.comfy_vae, condition, image, **SETTINGS).args
    assert out.shape == (1, 32, 48, 3) and out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1


def test_a_mask_keeps_the_plain_enlargement_and_skips_the_model(
    nodes: Any, tiny: Any, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    condition, _ = nodes.FluxSRConditioning.execute(str(Path("fluxsr/tiny"))).args
    image, mask = torch.rand(2, 16, 24, 3), torch.stack([torch.zeros(16, 24), torch.ones(16, 24)])
    arguments = (tiny.comfy_model, tiny.comfy_vae, condition, image)
    [full] = nodes.FluxSRUpscale.execute(*arguments, **SETTINGS).args
    [out] = nodes.FluxSRUpscale.execute(*arguments, mask=mask, **SETTINGS).args
    plain = bicubic(image.movedim(-1, 1), (32, 48)).movedim(1, -1)
    assert torch.equal(out[0], plain[0]) and torch.equal(out[1], full[1])
    monkeypatch.setattr(tiny.comfy_vae, "encode", None)  # would fail if it were called
    [out] = nodes.FluxSRUpscale.execute(*arguments, mask=mask[:1], **SETTINGS | {"width": 48}).args
    assert torch.equal(out, plain)


def test_the_bundled_model_is_the_pipelines(nodes: Any) -> None:
    images = torch.rand(2, 16, 24, 4, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        [out] = nodes.FluxSRBundled.execute(images, **SETTINGS).args
    pipe = load("bundled", device="cpu")
    wanted = pipe(images[..., :3].movedim(-1, 1), 2, output_type="pt").images.movedim(1, -1)
    torch.testing.assert_close(out, wanted)
    from comfy import model_management

    model_management.interrupt_current_processing(True)
    with pytest.raises(model_management.InterruptProcessingException):
        nodes.FluxSRBundled.execute(torch.rand(1, 16, 16, 3), **SETTINGS)
