"""The adapter: LoRA weights in diffusers' format, a small config file, and the fixed prompt."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import recurse_remove_peft_layers
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer

from fluxsr.backbones.cuts import CUTS
from fluxsr.backbones.device import DTYPES
from fluxsr.backbones.licence import Licence
from fluxsr.backbones.lora_files import WEIGHTS_FILE, check_lora, first_line, lora_file, read_lora
from fluxsr.backbones.places import CONFIG_FILE
from fluxsr.backbones.velocity import on_grid
from fluxsr.errors import ModelError, is_untranslatable
from fluxsr.options import MAX_STRENGTH

ORIGIN = ("base", "rank", "alpha", "licences")  # settings that say where an adapter comes from and change no pixel
ADAPTER = "fluxsr"  # what peft calls it while it is attached

# diffusers' own list for FLUX plus the linears of single-stream blocks, the embedder of the latents and the last
# layer (it is called proj_out too); no modulation, which folding needs.
TARGETS = (
    *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")),
    "attn.to_add_out",
    "ff.net.0.proj",
    "ff.net.2",
    "ff_context.net.0.proj",
    "ff_context.net.2",
    "proj_mlp",
    "proj_out",
    "x_embedder",
)


@dataclass
class AdapterConfig:
    """What travels with an adapter (``fluxsr_config.json``)."""

    t_l: float = 0.25  # time at which the LR latent enters
    strength: float = 1.0  # default strength of the step
    guidance: float | None = None  # distilled guidance, for bases that embed one
    train_dtype: str = "bf16"  # number format that it was trained in (device.DTYPES); what names none is taken for bf16
    scale: int = 4  # magnification it was trained for
    tile_size: int = 512  # largest tile, in output pixels, that it is known to work on
    token_cuts: int = 1  # ways to cut the latent into tokens, over which the velocity is averaged (cuts.py): 1, 2 or 4
    lattice_reach: float = 0.0  # tokens over which the removed lattice is averaged; 0: off (extensions/postprocess.py)
    fine_strength: float = 1.0  # fraction of the finest added detail that is kept (extensions/postprocess.py)
    flat_floor: float = 0.0  # detail amplitude of the input below which added detail is attenuated; 0 is off (ditto)
    prompt: str = ""  # text of the fixed prompt, for people; the embeddings are in their own file
    rank: int = 0
    alpha: float = 0.0
    base: str = ""  # model it adapts
    licences: list[dict[str, str]] = field(default_factory=list)  # of what it was made from (licence.py's fields)
    format: int = 1

    @property
    def condition(self) -> tuple[float, float | None]:
        """Time and guidance as the transformer saw them in training; in every number format it has to see the same.

        A guidance of 3.5 was 3.504 in a training in bfloat16; 3.5 itself changes FLUX.1-dev's velocity by 3 %.
        """
        dtype = DTYPES[self.train_dtype]
        return on_grid(self.t_l, dtype), None if self.guidance is None else on_grid(self.guidance, dtype)

    @property
    def postprocess(self) -> dict[str, float]:
        """Options of ``extensions.postprocess.postprocess``."""
        return {name: getattr(self, name) for name in ("lattice_reach", "fine_strength", "flat_floor")}

    @property
    def registered(self) -> dict[str, Any]:
        """The settings as ``FluxSRPipeline`` takes and registers them; the prompt's text is in its own component."""
        values = {name: value for name, value in asdict(self).items() if name not in ("prompt", "format")}
        # a mapping: diffusers takes every list in model_index.json for a component
        return {"origin": {name: values.pop(name) for name in ORIGIN}, **values}

    @classmethod
    def of(cls, registered: Mapping[str, Any], prompt: str) -> AdapterConfig:
        """Return the settings that a pipeline has registered, and the text of its prompt."""
        known = {entry.name for entry in fields(cls)} - {"prompt", "format", *ORIGIN}
        own = {name: registered[name] for name in known if name in registered}
        return cls(**own, **(registered["origin"] or {}), prompt=prompt)

    def save(self, folder: str | Path) -> None:
        Path(folder, CONFIG_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def load_config(folder: str | Path) -> AdapterConfig:
    """Read ``fluxsr_config.json``.

    Raises:
        ModelError: missing or unreadable file, unknown keys, or settings that cannot be.
    """
    path = Path(folder, CONFIG_FILE)
    if not path.is_file():
        raise ModelError(f"no {CONFIG_FILE} in {folder}; give a FluxSR adapter folder or write one (docs/inference.md)")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {entry.name for entry in fields(AdapterConfig)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ModelError(f"{path} has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        config = AdapterConfig(**values)
        for entry in config.licences:
            Licence(**entry)  # a TypeError names a key that there is not
        if fault := unfit(config) or unknown_dtype(config.train_dtype):
            raise ModelError(f"{path} says {fault}")
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return config


def unfit(settings: Any) -> str:
    """What none of an adapter's settings may be; empty where all are well.

    Args:
        settings: an `AdapterConfig`, or a recipe whose settings travel into one.
    """
    if not 0 < settings.t_l < 1:
        return f"t_l = {settings.t_l}; it must lie between 0 and 1"
    for name in ("strength", "guidance", "lattice_reach", "fine_strength", "flat_floor"):
        value = getattr(settings, name)
        if name == "guidance" and value is None:
            continue
        if not isinstance(value, (int, float)):
            return f"{name} = {value!r}; it must be a number"
        if not (math.isfinite(value) and value >= 0):
            return f"{name} = {value!r}; it must be 0 or more"
    if settings.strength > MAX_STRENGTH:
        return f"strength = {settings.strength!r}; it must be {MAX_STRENGTH:g} or less"
    if not isinstance(settings.tile_size, int) or settings.tile_size < 1:
        return f"tile_size = {settings.tile_size!r}; it must be a whole number of pixels"
    if settings.token_cuts not in CUTS:
        return f"token_cuts = {settings.token_cuts!r}; it must be one of {', '.join(map(str, CUTS))}"
    return ""


def unknown_dtype(name: Any) -> str:
    """The fault of an adapter's ``train_dtype``; empty where there is none."""
    return "" if name in DTYPES else f"train_dtype = {name!r}; it must be one of {', '.join(DTYPES)}"


def add_lora(transformer: Any, rank: int, alpha: float, targets: Sequence[str] = TARGETS) -> None:
    """Freeze the transformer and give it a trainable LoRA in float32 (peft would follow a bfloat16 base)."""
    transformer.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights="gaussian")
    try:
        transformer.add_adapter(config)
    except ValueError as error:  # no module has such a name
        raise ModelError(f"cannot adapt {', '.join(targets)}: {first_line(error)}") from error
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def save_lora(transformer: Any, folder: str | Path, dtype: torch.dtype = torch.bfloat16, write: bool = True) -> None:
    """Write ``pytorch_lora_weights.safetensors`` with rank and alpha in its header, as diffusers does.

    Where FSDP shards the weights they are gathered: all processes must call, and one of them writes.
    """
    state = get_peft_model_state_dict(transformer)
    wholes = {key: value.full_tensor() if hasattr(value, "full_tensor") else value for key, value in state.items()}
    layers = {key: value.to(dtype).contiguous() for key, value in wholes.items()}
    if not write:
        return
    FluxPipeline.save_lora_weights(
        folder, transformer_lora_layers=layers, **_collate_lora_metadata({"transformer": transformer})
    )


def fuse_lora(transformer: Any, folder: str | Path) -> None:
    """Merge an adapter's LoRA into the transformer, in place; ``attach_lora`` says what is read and raised."""
    attach_lora(transformer, folder)
    transformer.fuse_lora()
    transformer.unload_lora()


def attach_lora(transformer: Any, folder: str | Path) -> dict[str, Any]:
    """Put an adapter's LoRA beside the transformer's weights, where it computes but nothing is merged.

    Any key style that diffusers converts is read: its own (with or without prefix, with alpha in the header or in
    tensors), Kohya, X-Labs, BFL; the last three at FLUX's size only, which their converters expect. And PEFT's own.

    Args:
        transformer: FluxTransformer2DModel; where its weights are quantized this is the only way.
        folder: of the adapter.

    Returns:
        The LoRA's matrices by the names that they have in the transformer now. Where that is on the meta device, so
        are its own, and they are to be put there.

    Raises:
        ModelError: unreadable file, or weights that do not fit this transformer.
    """
    path = lora_file(folder) or Path(folder, WEIGHTS_FILE)
    state, alphas, metadata = read_lora(path)
    check_lora(transformer, state, path)
    try:
        transformer.load_lora_adapter(
            state,
            network_alphas=alphas or None,
            prefix="transformer",
            metadata=None if alphas else metadata or None,
            adapter_name=ADAPTER,
            low_cpu_mem_usage=True,  # the file's own tensors, not copies of them
        )
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        if is_untranslatable(error):
            raise
        raise ModelError(f"adapter {path} does not fit the transformer: {first_line(error)}") from error
    return {
        key.removeprefix("transformer.").replace(".weight", f".{ADAPTER}.weight"): value for key, value in state.items()
    }


@dataclass(frozen=True)
class LoraWeights:
    """A LoRA in diffusers' names: matrices, alphas and header, and what a message calls it."""

    state: dict[str, Any]
    alphas: dict[str, Any] | None
    metadata: dict[str, Any] | None
    name: str


def read_adapter(source: str | PathLike[str] | dict[str, Any], settings: AdapterConfig, **options: Any) -> LoraWeights:
    """Read a LoRA that is to work in a model with these settings.

    Args:
        source: an adapter's folder, a LoRA's file or Hub id, or its tensors.
        options: of diffusers' ``lora_state_dict``.

    Raises:
        ModelError: unreadable, or an adapter that was trained at another time or guidance.
    """
    folder = None if isinstance(source, dict) else Path(source)
    if folder and (folder / CONFIG_FILE).is_file() and (own := load_config(folder).condition) != settings.condition:
        raise ModelError(
            f"adapter {folder} was trained at t, guidance = {own}, and the pipeline stands at {settings.condition}; "
            "call fluxsr.load(model, adapter=...)"
        )
    file = folder and (folder if folder.is_file() else lora_file(folder))
    if file and "weight_name" not in options:
        state, alphas, metadata = read_lora(file)
    else:
        options = {name: value for name, value in options.items() if name != "hotswap"}
        state, alphas, metadata = FluxPipeline.lora_state_dict(
            str(folder) if folder else source, return_alphas=True, return_lora_metadata=True, **options
        )
    return LoraWeights(state, alphas or None, None if alphas else metadata or None, str(folder or "given as tensors"))


def merge_lora(module: Any) -> None:
    """Merge what ``attach_lora`` put beside the weights of a part of a transformer, and take it away."""
    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
    recurse_remove_peft_layers(module)
