"""Files of LoRA weights: where one is, in which names it is written, and whether it fits a transformer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import FluxPipeline
from safetensors import safe_open

from fluxsr.backbones.places import PEFT_FILES, WEIGHTS_FILE
from fluxsr.errors import ModelError, is_untranslatable


def lora_file(folder: str | Path) -> Path | None:
    """The file with an adapter's LoRA in a folder, under diffusers' or PEFT's name; None where there is none."""
    files = (Path(folder, name) for name in (WEIGHTS_FILE, PEFT_FILES[0]))
    return next((file for file in files if file.is_file()), None)


def read_lora(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Matrices, alphas and header of a LoRA file, in diffusers' names; its text encoders' part is left out.

    Raises:
        ModelError: unreadable file, or DoRA's, whose magnitudes diffusers would leave out.
    """
    try:
        with safe_open(path, "pt") as file:
            dora = next((key for key in file.keys() if "dora_scale" in key), "")  # noqa: SIM118
        state, alphas, metadata = _peft_s_own(path) or FluxPipeline.lora_state_dict(
            path.parent, weight_name=path.name, return_alphas=True, return_lora_metadata=True, local_files_only=True
        )
    except Exception as error:  # diffusers and safetensors raise many kinds; all mean an unreadable file
        if is_untranslatable(error):
            raise
        raise ModelError(f"adapter weights {path} cannot be read: {first_line(error)}") from error
    if dora:
        raise ModelError(f"adapter {path} holds '{dora}': DoRA is not read, merge it into the base first")
    return _for_transformer(state or {}), _for_transformer(alphas or {}), _for_transformer(metadata or {})


def _peft_s_own(path: Path) -> tuple[dict[str, Any], None, dict[str, Any] | None] | None:
    """A file in diffusers' names under PEFT's prefix, with rank and alpha from PEFT's config; None for others.

    diffusers takes that prefix for BFL's names, which trainers on BFL's own code put there.
    """
    prefix = "base_model.model."
    with safe_open(path, "pt") as file:
        if not any(key.startswith(prefix) and "transformer_blocks." in key for key in file.keys()):  # noqa: SIM118
            return None
        state = {key.removeprefix(prefix): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    config = path.with_name(PEFT_FILES[1])
    if not config.is_file():
        return state, None, None  # alpha is the rank then, as for all of them
    told = json.loads(config.read_text(encoding="utf-8"))
    wanted = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_rslora")
    return state, None, {key: told[key] for key in wanted if key in told}


def _for_transformer(entries: dict[str, Any]) -> dict[str, Any]:
    """Entries of the transformer, under diffusers' prefix: without one they would be dropped with a warning.

    Text encoders' LoRA is left out: the prompt's embeddings are fixed.
    """
    return {
        key if key.startswith("transformer.") else f"transformer.{key}": value
        for key, value in entries.items()
        if not key.startswith("text_encoder")
    }


def check_lora(transformer: Any, state: dict[str, Any], path: Path | str) -> None:
    """Every LoRA matrix must find its module and its partner, with their widths; diffusers only warns of others."""
    modules = dict(transformer.named_modules())
    pairs = {key: value for key, value in state.items() if ".lora_A" in key}
    if not pairs:
        raise ModelError(f"adapter {path} holds no LoRA weights for the transformer")
    for key, value in pairs.items():
        name = key.removeprefix("transformer.").split(".lora_A")[0]
        module = modules.get(name)
        if module is None or not hasattr(module, "in_features"):
            folded = "norm" in name or "time_text_embed" in name
            hint = "; the transformer is folded: give it unfolded" if folded else ""
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
    """Nothing but LoRA's two matrices is in a file: loaders drop the rest, DoRA's magnitudes, without a word."""
    strays = sorted(key for key in state if not key.endswith((".lora_A.weight", ".lora_B.weight")))
    if strays:
        raise ModelError(
            f"adapter {path} holds '{strays[0]}', which is no LoRA weight; only LoRA's two matrices are read: "
            "merge DoRA, biases and the like into the base first"
        )


def first_line(error: Exception) -> str:
    """What an error of a library says, as a part of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
