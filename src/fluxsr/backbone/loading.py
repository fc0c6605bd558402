"""Loading: a folder in diffusers layout, a Hub id, or the bundled model, with or without an adapter.

Weights are read from safetensors, or from pickles with weights_only=True; no code of a model folder runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from fluxsr.backbone.adapter import CONFIG_FILE, WEIGHTS_FILE, AdapterConfig, fuse_lora, load_config
from fluxsr.backbone.attention import ChunkedFluxAttnProcessor
from fluxsr.backbone.fold import FoldedFluxTransformer2DModel, fold
from fluxsr.backbone.prompts import FILE, FixedPrompt, load_prompt
from fluxsr.backbone.quantize import nf4
from fluxsr.errors import InputError, ModelError

BUNDLED = "bundled"
_CLASSES = {
    "transformer": {
        "FluxTransformer2DModel": diffusers.FluxTransformer2DModel,
        "FoldedFluxTransformer2DModel": FoldedFluxTransformer2DModel,
    },
    "vae": {"AutoencoderKL": diffusers.AutoencoderKL, "AutoencoderDC": diffusers.AutoencoderDC},
}
# In full: "*" matches folders too, and a model's repository would come down whole.
_ADAPTER_FILES = [CONFIG_FILE, WEIGHTS_FILE, FILE, "t5_embedding.pth", "clip_embedding.pth"]


@dataclass
class Backbone:
    """What one step needs."""

    transformer: Any
    vae: Any
    prompt: FixedPrompt
    config: AdapterConfig = field(default_factory=AdapterConfig)
    name: str = ""


def best_device(name: str | torch.device = "auto") -> torch.device:
    """The named device, or the best there is: cuda, xpu, mps, cpu.

    Raises:
        InputError: a device that this PyTorch does not have.
    """
    backends = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.backends.mps}
    here = [kind for kind, backend in backends.items() if backend.is_available()] + ["cpu"]
    try:
        device = torch.device(here[0] if name == "auto" else name)
    except RuntimeError as error:
        raise InputError(f"no device is called '{name}'; choose from auto, {', '.join(here)}") from error
    if device.type not in here or (device.index or 0) >= max(1, getattr(torch, device.type).device_count()):
        raise InputError(f"device '{name}' is not available; this machine has {', '.join(here)}")
    return device


def best_dtype(device: torch.device, name: str | torch.dtype = "auto") -> torch.dtype:
    """The named number format, or bfloat16 where the device computes in it and float32 elsewhere.

    Raises:
        InputError: a name that is not known, or a torch.dtype that is not floating.
    """
    if isinstance(name, torch.dtype) and name.is_floating_point:
        return name
    names = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if name in names:
        return names[name]
    if name != "auto":
        raise InputError(f"dtype '{name}' is not known; choose from auto, {', '.join(names)}")
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_has_bf16() else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "xpu" else torch.float32


def load(
    model: str | Path = BUNDLED,
    adapter: str | Path | bool | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    folded: bool = True,
) -> Backbone:
    """Everything inference needs: adapter fused, modulation folded, on its device.

    Args:
        model: "bundled", a folder in diffusers layout, or a Hub id.
        adapter: folder or Hub id; None takes the adapter in the model's own folder; False leaves it out
            (prompt and config are still read there).
        folded: replace the modulation by its constants; needed off only to look inside.

    Raises:
        ModelError: anything missing or unfit, in one line.
        InputError: unknown device or dtype.
    """
    device = best_device(device) if isinstance(device, str) else device
    dtype = best_dtype(device, dtype) if isinstance(dtype, str) else dtype
    folder = folder_of(model)
    adapted = folder if adapter is None or isinstance(adapter, bool) else folder_of(adapter)
    if isinstance(adapted, str):
        adapted = _download(adapted)
    config, prompt = load_config(adapted), load_prompt(adapted)
    transformer = load_part(folder, "transformer", dtype)
    vae = load_part(folder, "vae", dtype)
    if adapter is not False and (adapted / WEIGHTS_FILE).is_file():
        fuse_lora(transformer, adapted)
    elif adapter not in (None, False):
        raise ModelError(f"no {WEIGHTS_FILE} in {adapted}; give the folder of an adapter")
    _check_fit(transformer, prompt, config, adapted)
    transformer, prompt = transformer.to(device), prompt.to(device)
    if folded:
        transformer = fold(transformer, config.t_l, config.guidance, prompt.pooled_prompt_embeds)
    if device.type == "cpu" and dtype == torch.bfloat16:
        transformer.set_attn_processor(ChunkedFluxAttnProcessor())
    vae = vae.to(device, memory_format=torch.channels_last).eval()
    name = str(model) if adapter is None else f"{model} ({'no adapter' if adapter is False else adapter})"
    return Backbone(transformer.eval(), vae, prompt, config, name)


def load_base(
    folder: str | Path, device: torch.device, dtype: torch.dtype, quantize: str = "none", prompt_folder: str | Path = ""
) -> Backbone:
    """Transformer, autoencoder and prompt without an adapter, unfolded: what training starts from.

    ``quantize`` nf4: its linears in 4 bits, for a LoRA on top. ``prompt_folder``: if the prompt is not beside the base.
    """
    path = folder_of(folder)
    fixed = load_prompt(prompt_folder or path)
    scheme = nf4(device, dtype) if quantize == "nf4" else None
    transformer = load_part(path, "transformer", dtype, scheme).to(device)
    vae = load_part(path, "vae", dtype).to(device, memory_format=torch.channels_last)
    return Backbone(transformer, vae.requires_grad_(False), fixed, name=str(folder))


def load_transformer(model: str | Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The transformer alone, frozen and unfolded: a teacher whose prompts come from elsewhere."""
    transformer = load_part(folder_of(model), "transformer", dtype).to(device).eval().requires_grad_(False)
    if device.type == "cpu" and dtype == torch.bfloat16:
        transformer.set_attn_processor(ChunkedFluxAttnProcessor())
    return transformer


def load_autoencoder(model: str | Path, device: torch.device) -> Any:
    """The autoencoder alone, frozen, in float32."""
    vae = load_part(folder_of(model), "vae", torch.float32).to(device, memory_format=torch.channels_last)
    return vae.eval().requires_grad_(False)


def save_base(backbone: Backbone, folder: str | Path) -> None:
    """Write transformer, autoencoder, config and prompt in diffusers layout; an adapter may join them there."""
    backbone.transformer.save_pretrained(Path(folder, "transformer"))
    backbone.vae.save_pretrained(Path(folder, "vae"))
    save(backbone, folder)


def save(backbone: Backbone, folder: str | Path) -> None:
    """Write what diffusers' own ``save_pretrained`` does not know of: config and fixed prompt."""
    backbone.config.save(folder)
    backbone.prompt.save(folder)


def load_part(model: Path | str, part: str, dtype: torch.dtype, quantization: Any = None) -> Any:
    """One component of a model in diffusers layout, of a class we know, with every weight in place.

    Raises:
        ModelError: unknown class, or weights that are missing, mis-shaped or unreadable.
    """
    try:
        config = _part_config(model, part)
        name = config.get("_class_name", "none")
        if name not in _CLASSES[part]:
            raise ModelError(f"{model}/{part} is of class {name}; known are {', '.join(_CLASSES[part])}")
        scheme = {"quantization_config": quantization} if quantization else {}
        loaded, report = _CLASSES[part][name].from_pretrained(
            model, subfolder=part, torch_dtype=dtype, output_loading_info=True, **scheme
        )
    except ModelError:
        raise
    except Exception as error:  # diffusers, hub and safetensors raise many kinds; all end in one line
        raise ModelError(explain(model, part, error)) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(f"{model}/{part} lacks {len(missing)} weights, the first is '{missing[0]}'; download it again")
    # diffusers believes the index of a sharded model; a weight that its shard lacks stays without memory
    empty = [name for name, tensor in loaded.state_dict().items() if tensor.is_meta]
    if empty:
        raise ModelError(f"{model}/{part} lacks {len(empty)} weights, the first is '{empty[0]}'; download it again")
    return loaded


def part_config(model: str | Path, part: str) -> dict[str, Any]:
    """The configuration of a part, without its weights.

    Raises:
        ModelError: missing or unreadable.
    """
    folder = folder_of(model)
    try:
        return _part_config(folder, part)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(explain(folder, part, error)) from error


def _part_config(model: Path | str, part: str) -> dict[str, Any]:
    if isinstance(model, Path):
        path = model / part / "config.json"
        if not path.is_file():
            raise ModelError(f"no {part}/config.json in {model}; expected a model folder in diffusers layout")
        return json.loads(path.read_text(encoding="utf-8"))
    return _CLASSES[part][next(iter(_CLASSES[part]))].load_config(model, subfolder=part)


def explain(model: Path | str, part: str, error: Exception) -> str:
    """What went wrong while loading, in one line."""
    cause: BaseException | None = error
    while cause is not None:  # diffusers wraps the hub's errors and then calls a gated model unknown
        if isinstance(cause, GatedRepoError):
            return (
                f"{model} is gated: accept its licence at https://huggingface.co/{model}, then run `hf auth login` "
                "with a token of that account"
            )
        if isinstance(cause, RepositoryNotFoundError):
            return f"{model} is not on the Hub, or private: check the name, or run `hf auth login`"
        cause = cause.__cause__ or cause.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"cannot load {part} of {model}: {lines[0]}"


def folder_of(model: str | Path) -> Path | str:
    """A local folder as a Path, the bundled model's, or a Hub id as it is."""
    if model == BUNDLED:
        path = Path(str(resources.files("fluxsr") / "pretrained"))
        if not (path / "transformer").is_dir():
            raise ModelError("the bundled weights are missing from this installation; install fluxsr again")
        return path
    if Path(model).is_dir():
        return Path(model)
    if isinstance(model, str) and model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return model
    raise ModelError(f"no model folder {model}; give an existing folder, a Hub id (owner/name), or '{BUNDLED}'")


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=_ADAPTER_FILES))
    except Exception as error:
        raise ModelError(explain(repository, "adapter", error)) from error


def _check_fit(transformer: Any, prompt: FixedPrompt, config: AdapterConfig, folder: Path) -> None:
    wants = (transformer.config.joint_attention_dim, transformer.config.pooled_projection_dim)
    has = (prompt.prompt_embeds.shape[-1], prompt.pooled_prompt_embeds.shape[-1])
    if wants != has:
        raise ModelError(f"the fixed prompt in {folder} has widths {has}; this transformer needs {wants}")
    if transformer.config.guidance_embeds and config.guidance is None:
        raise ModelError(f"{folder / CONFIG_FILE} gives no guidance, but this transformer embeds one; write 3.5, say")
    if isinstance(transformer, FoldedFluxTransformer2DModel):
        at = (transformer.config.folded_t, transformer.config.folded_guidance)
        if at != (config.t_l, config.guidance):
            raise ModelError(
                f"the transformer is folded at t, guidance = {at}, but {folder} wants {(config.t_l, config.guidance)}; "
                "give the model unfolded"
            )


def _cpu_has_bf16() -> bool:
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
