"""The names of diffusers, transformers and peft that an upgrade may change without notice: what to look at first."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import nn

import fluxsr

LIBRARIES = ("diffusers", "transformers", "peft")
NODES = [
    node
    for path in Path(fluxsr.__file__).parent.rglob("*.py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
]

DEEP_IMPORTS = {
    "diffusers.configuration_utils.register_to_config",
    "diffusers.loaders.lora_base.LoraBaseMixin",
    "diffusers.loaders.single_file_utils.convert_flux_transformer_checkpoint_to_diffusers",
    "diffusers.loaders.single_file_utils.convert_flux2_transformer_checkpoint_to_diffusers",
    "diffusers.models.attention_dispatch.dispatch_attention_fn",
    "diffusers.models.normalization.AdaLayerNormContinuous",
    "diffusers.models.normalization.AdaLayerNormZero",
    "diffusers.models.normalization.AdaLayerNormZeroSingle",
    "diffusers.models.transformers.transformer_flux2.Flux2Modulation",
    "diffusers.pipelines.flux2.pipeline_flux2_klein.compute_empirical_mu",
    "diffusers.quantizers.DiffusersAutoQuantizer",
    "diffusers.training_utils._collate_lora_metadata",
    "diffusers.utils.SAFETENSORS_WEIGHTS_NAME",
    "diffusers.utils.SAFE_WEIGHTS_INDEX_NAME",
    "diffusers.utils.accelerate_utils.apply_forward_hook",
    "diffusers.utils.recurse_remove_peft_layers",
    "peft.tuners.tuners_utils.BaseTunerLayer",
    "peft.utils.other.get_pattern_key",
}
ATTRIBUTES = {
    "_callback_tensor_inputs",
    "_execution_device",
    "_hf_peft_config_loaded",
    "_lora_loadable_modules",
    "_supports_gradient_checkpointing",
}


def test_imports_of_names_that_the_libraries_do_not_export() -> None:
    imported = {
        (node.module.split(".")[0], node.module, alias.name)
        for node in NODES
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in LIBRARIES
        for alias in node.names
    }
    deep = {(module, name) for library, module, name in imported if not hasattr(import_module(library), name)}
    assert {f"{module}.{name}" for module, name in deep} == DEEP_IMPORTS
    assert all(hasattr(import_module(module), name) for module, name in deep)


def test_private_attributes_of_the_libraries_objects() -> None:
    used = {node.attr for node in NODES if isinstance(node, ast.Attribute)}
    used |= {node.id for node in NODES if isinstance(node, ast.Name)}
    theirs = {*dir(FluxPipeline), *dir(FluxTransformer2DModel)} - {*dir(nn.Module)}
    assert {name for name in used & theirs if name.startswith("_") and not name.startswith("__")} == ATTRIBUTES
