"""What of ComfyUI the nodes call, as it was in 0.3.75: checked in ComfyUI, and of the stand-in."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

RECORDED = {
    "comfy.samplers:CFGGuider.__init__": ["self", "model_patcher"],
    "comfy.samplers:CFGGuider.inner_set_conds": ["self", "conds"],
    "comfy.samplers:CFGGuider.sample": [
        "self", "noise", "latent_image", "sampler", "sigmas", "denoise_mask", "callback", "disable_pbar", "seed",
    ],
    "comfy.sd:VAE.spacial_compression_encode": ["self"],
    "comfy.sd:VAE.encode": ["self", "pixel_samples"],
    "comfy.sd:VAE.decode": ["self", "samples_in", "vae_options"],
    "comfy.utils:ProgressBar.__init__": ["self", "total", "node_id"],
    "comfy.utils:ProgressBar.update": ["self", "value"],
    "comfy.utils:ProgressBar.update_absolute": ["self", "value", "total", "preview"],
    "comfy.model_management:throw_exception_if_processing_interrupted": [],
    "comfy.model_management:get_torch_device": [],
    "folder_paths:get_filename_list": ["folder_name"],
    "folder_paths:get_folder_paths": ["folder_name"],
}  # fmt: skip


@pytest.mark.parametrize("place", RECORDED)
def test_signatures_are_the_recorded_ones(comfyui: Any, place: str) -> None:
    module, _, path = place.partition(":")
    target = importlib.import_module(module)
    for name in path.split("."):
        target = getattr(target, name)
    parameters = list(inspect.signature(target).parameters.values())
    known = len(RECORDED[place])
    assert [parameter.name for parameter in parameters[:known]] == RECORDED[place]
    assert all(parameter.default is not parameter.empty for parameter in parameters[known:])  # of a later version


def test_a_sampler_is_called_as_the_guider_calls_it(comfyui: Any) -> None:
    from comfy.samplers import Sampler

    from fluxsr.comfyui.upscaling import OneStep

    wanted = ["model_wrap", "sigmas", "extra_args", "callback", "noise", "latent_image", "denoise_mask", "disable_pbar"]
    assert issubclass(OneStep, Sampler)
    assert list(inspect.signature(OneStep.sample).parameters) == ["self", *wanted]
