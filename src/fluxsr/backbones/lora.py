"""Read LoRA files in all published key styles, check them, and add, attach, merge and save LoRAs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from fluxsr.backbones.families import family_of, family_of_layers
from fluxsr.backbones.family import Family
from fluxsr.backbones.places import NOT_LORA, PEFT_FILES, WEIGHTS_FILE
from fluxsr.errors import ModelError, first_line, is_untranslatable, needed

ADAPTER = "fluxsr"  # name of the attached adapter in peft
_PEFT_PREFIX = "base_model.model."
_PEFT_SETTINGS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_rslora")

Lora = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


def lora_file(folder: str | Path) -> Path | None:
    """Return the file in a folder that holds an adapter's LoRA (diffusers' or PEFT's name), or None."""
    files = (Path(folder, name) for name in (WEIGHTS_FILE, PEFT_FILES[0]))
    return next((file for file in files if file.is_file()), None)


def check_installed() -> None:
    """Raise an InputError if a package that reads or trains a LoRA is missing; the bundled model needs none."""
    needed("a LoRA", "flux", "peft", "transformers")


def lora_in(folder: Path) -> Path:
    """Return a folder's only LoRA: under a known name, or else the only safetensors file.

    Raises:
        ModelError: there is no such file, or more than one.
    """
    if file := lora_file(folder):
        return file
    others = sorted(path for path in folder.glob("*.safetensors") if path.name not in NOT_LORA)
    if len(others) != 1:
        found = ", ".join(path.name for path in others) or "none"
        raise ModelError(f"{folder} must hold the safetensors file of one LoRA, but holds {found}; give the one file")
    return others[0]


def read_lora(path: Path, family: Family | None = None) -> Lora:
    """Return matrices, alphas and header of a LoRA file under diffusers' names, without those of text encoders.

    The function reads PEFT's key style and all styles that diffusers converts for the family. Diffusers' own keys may
    have a prefix or none, and alpha in the header or in tensors. The styles of Kohya, X-Labs and BFL need FLUX.1's
    original size.

    Args:
        path: the file.
        family: family of the transformer. By default names and shapes in the file determine it.

    Raises:
        ModelError: the file is unreadable, or contains DoRA, whose magnitudes diffusers would ignore.
    """
    check_installed()
    try:
        with safe_open(path, "pt") as file:
            keys = list(file.keys())
            family = family or family_of_layers({key: file.get_slice(key).get_shape() for key in keys})
            peft = any(key.startswith(_PEFT_PREFIX) and "transformer_blocks." in key for key in keys)
            found = {key.removeprefix(_PEFT_PREFIX): file.get_tensor(key) for key in keys} if peft else {}
        if peft:  # diffusers would mistake the prefix for BFL's key style
            state, alphas, header = found, dict[str, Any](), _peft_settings(path)
        else:
            state, alphas, header = family.read_lora(path.parent, weight_name=path.name, local_files_only=True)
    except Exception as error:  # diffusers and safetensors raise many types for an unreadable file
        if is_untranslatable(error):
            raise
        raise ModelError(f"adapter weights {path} cannot be read: {first_line(error)}") from error
    refuse_dora(keys, path)
    state, alphas, header = (for_transformer(entries) for entries in (state, alphas, header))
    return state, alphas, header


def refuse_dora(keys: Iterable[str], path: Path | str) -> None:
    """Raise a ModelError for DoRA's magnitudes, which diffusers drops."""
    if dora := next((key for key in keys if "dora_scale" in key), ""):
        raise ModelError(f"adapter {path} contains '{dora}'; DoRA is not supported, merge it into the base first")


def _peft_settings(path: Path) -> dict[str, Any]:
    """Return rank and alpha from the config beside a PEFT file. Without a config, alpha equals the rank."""
    config = path.with_name(PEFT_FILES[1])
    settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return {key: settings[key] for key in _PEFT_SETTINGS if key in settings}


def for_transformer(entries: dict[str, Any]) -> dict[str, Any]:
    """Return the transformer's entries with diffusers' prefix. Without it, diffusers would ignore them."""
    return {
        key if key.startswith("transformer.") else f"transformer.{key}": value
        for key, value in entries.items()
        if not key.startswith("text_encoder")
    }


def check_lora(transformer: Any, state: dict[str, Any], path: Path | str) -> None:
    """Check that every matrix belongs to a layer, has its partner, and has the right shape. Diffusers only warns.

    Raises:
        ModelError: a matrix fails a check, or there is no matrix.
    """
    modules = dict(transformer.named_modules())
    pairs = {key: value for key, value in state.items() if ".lora_A" in key}
    if not pairs:
        raise ModelError(f"adapter {path} has no LoRA weights for the transformer")
    for key, value in pairs.items():
        name = key.removeprefix("transformer.").split(".lora_A")[0]
        module = modules.get(name)
        if module is None or not hasattr(module, "in_features"):
            folded = family_of(transformer).is_modulation(name)
            hint = "; the transformer is folded, use the unfolded model" if folded else ""
            raise ModelError(f"adapter {path} adapts '{name}', which this transformer does not have{hint}")
        other = state.get(key.replace(".lora_A", ".lora_B"))
        if other is None:
            raise ModelError(f"adapter {path} lacks lora_B of '{name}'; the file is incomplete")
        found, wanted = ([*value.shape[1:]], [*other.shape]), ([module.in_features], [module.out_features, len(value)])
        if found != wanted:
            raise ModelError(
                f"adapter {path}: '{name}' has lora_A {[*value.shape]} and lora_B {found[1]}; "
                f"the transformer's layer goes from {module.in_features} to {module.out_features} channels"
            )
    check_lora_alone(state, path)


def check_lora_alone(state: dict[str, Any], path: Path | str) -> None:
    """Check that a file has only LoRA's two matrices. Loaders would ignore anything else, such as DoRA's magnitudes.

    Raises:
        ModelError: the file has other tensors.
    """
    strays = sorted(key for key in state if not key.endswith((".lora_A.weight", ".lora_B.weight")))
    if strays:
        raise ModelError(
            f"adapter {path} contains '{strays[0]}', which is not one of LoRA's two matrices; "
            "merge DoRA, biases and the like into the base first"
        )


def add_lora(transformer: Any, rank: int, alpha: float, targets: Sequence[str] = ()) -> None:
    """Freeze a transformer and add a trainable LoRA. It is in float32, even if the base is in bfloat16.

    Args:
        transformer: transformer of a known family.
        rank: rank of the LoRA.
        alpha: the LoRA is scaled by ``alpha / rank``.
        targets: names of the layers to adapt. The default is the family's ``lora_targets``.
    """
    check_installed()
    from peft import LoraConfig

    transformer.requires_grad_(False)
    targets = targets or family_of(transformer).lora_targets
    layers = [name for target in targets for name in _layers(transformer, target)]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, init_lora_weights="gaussian")
    try:
        transformer.add_adapter(config)
    except ValueError as error:  # no layer has one of these names
        raise ModelError(f"cannot adapt {', '.join(targets)}: {first_line(error)}") from error
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _layers(transformer: Any, target: str) -> list[str]:
    """Return a target, or the full names of its layers if some are lists, which peft refuses ("to_out" in FLUX.2)."""
    named = [(name, module) for name, module in transformer.named_modules() if f".{name}".endswith(f".{target}")]
    layers = [name for name, module in named if not isinstance(module, nn.ModuleList)]
    return [target] if len(layers) == len(named) else layers


def save_lora(transformer: Any, folder: str | Path, dtype: torch.dtype = torch.bfloat16, write: bool = True) -> None:
    """Write ``pytorch_lora_weights.safetensors`` with rank and alpha in its header, like diffusers.

    Weights that are sharded by FSDP are gathered, so all processes must call this. Only one should ``write``.
    """
    from diffusers.training_utils import _collate_lora_metadata
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(transformer)
    gathered = {key: value.full_tensor() if hasattr(value, "full_tensor") else value for key, value in state.items()}
    layers = {key: value.to(dtype).contiguous() for key, value in gathered.items()}
    if write:
        header = _collate_lora_metadata({"transformer": transformer})
        family_of(transformer).pipeline.save_lora_weights(folder, transformer_lora_layers=layers, **header)


def fuse_lora(transformer: Any, folder: str | Path) -> None:
    """Merge an adapter's LoRA into a transformer, in place; see ``attach_lora``."""
    attach_lora(transformer, folder)
    transformer.fuse_lora()
    transformer.unload_lora()


def attach_lora(transformer: Any, folder: str | Path) -> dict[str, Any]:
    """Attach an adapter's LoRA to a transformer without merging it. Quantized weights allow no merge.

    Args:
        transformer: transformer of a known family.
        folder: folder of the adapter.

    Returns:
        The LoRA's matrices by their names in the transformer. If the transformer is on the meta device, the caller has
        to assign them.

    Raises:
        ModelError: the file is unreadable, or its weights do not fit this transformer.
    """
    path = lora_file(folder) or Path(folder, WEIGHTS_FILE)
    state, alphas, header = read_lora(path, family_of(transformer))
    check_lora(transformer, state, path)
    try:
        transformer.load_lora_adapter(
            state,
            network_alphas=alphas or None,
            prefix="transformer",
            metadata=None if alphas else header or None,
            adapter_name=ADAPTER,
            low_cpu_mem_usage=True,  # uses the file's tensors without copies
        )
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        if is_untranslatable(error):
            raise
        raise ModelError(f"adapter {path} does not fit the transformer: {first_line(error)}") from error
    return {
        key.removeprefix("transformer.").replace(".weight", f".{ADAPTER}.weight"): value for key, value in state.items()
    }


def merge_lora(module: Any) -> None:
    """Merge the LoRA that ``attach_lora`` attached to a part of a transformer, and remove its layers."""
    from diffusers.utils import recurse_remove_peft_layers
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
    recurse_remove_peft_layers(module)
