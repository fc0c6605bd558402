"""Loading: a folder in diffusers layout, a Hub id, or the bundled model, with or without an adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fluxsr.backbone.adapter import CONFIG_FILE, WEIGHTS_FILE, AdapterConfig, attach_lora, fuse_lora, load_config
from fluxsr.backbone.attention import ChunkedFluxAttnProcessor
from fluxsr.backbone.device import best_device, best_dtype, free_bytes
from fluxsr.backbone.fold import FoldedFluxTransformer2DModel, fold
from fluxsr.backbone.memory import BITS, Needs, Plan, plan
from fluxsr.backbone.parts import load_part, parameter_count, part_config, skeleton
from fluxsr.backbone.places import BUNDLED, download, explain, folder_of
from fluxsr.backbone.prompts import FILE, FixedPrompt, load_prompt
from fluxsr.backbone.quantize import declare, is_quantized, kinds_here, nf4, quantize_, scheme_of
from fluxsr.backbone.stream import FILES, has_safetensors, stream
from fluxsr.errors import ModelError

_ADAPTER_FILES = [CONFIG_FILE, WEIGHTS_FILE, FILE, "t5_embedding.pth", "clip_embedding.pth"]


@dataclass
class Backbone:
    """What one step needs."""

    transformer: Any
    vae: Any
    prompt: FixedPrompt
    config: AdapterConfig = field(default_factory=AdapterConfig)
    name: str = ""


def load(
    model: str | Path = BUNDLED,
    adapter: str | Path | bool | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    folded: bool = True,
    fused: bool = True,
    quantize: str = "none",
    offload: bool = False,
) -> Backbone:
    """Everything inference needs: adapter fused, modulation folded, weights quantized, on its device.

    In that order: a merge into small weights would lose what it adds. Where they are small already, the adapter's LoRA
    stays beside them.

    Args:
        model: "bundled", a folder in diffusers layout, or a Hub id.
        adapter: folder or Hub id; None takes the adapter in the model's own folder; False leaves it out
            (prompt and config are still read there).
        folded: replace the modulation by its constants; needed off only to look inside.
        fused: False leaves the adapter's LoRA out, for ``fluxsr export --no-fuse``.
        quantize: "none", "int8", "fp8" or "nf4" (quantize.py).
        offload: the transformer stays in the host's memory, and its blocks come to the device one by one as they are
            needed: slower, and for cards that hold no more.

    Raises:
        ModelError: anything missing or unfit, in one line.
        InputError: unknown device, dtype or quantization, or one that cannot be had here.
    """
    device = best_device(device) if isinstance(device, str) else device
    dtype = best_dtype(device, dtype) if isinstance(dtype, str) else dtype
    folder, scheme = folder_of(model), scheme_of(quantize, device, dtype)
    adapted = _adapter_folder(folder, adapter)
    config, prompt = load_config(adapted), load_prompt(adapted)
    if adapter not in (None, False) and not (adapted / WEIGHTS_FILE).is_file():
        raise ModelError(f"no {WEIGHTS_FILE} in {adapted}; give the folder of an adapter")
    source = part_config(folder, "transformer")
    empty = skeleton(source)
    _check_fit(empty, prompt, config, adapted)
    home = torch.device("cpu") if offload else device  # where the transformer's weights live
    vae, prompt = load_part(folder, "vae", dtype), prompt.to(home)
    lora = adapted if fused and adapter is not False and (adapted / WEIGHTS_FILE).is_file() else None
    at = (config.t_l, config.guidance, prompt.pooled_prompt_embeds) if folded else None
    transformer = _transformer(folder, source, empty, dtype, home, lora, at, scheme)
    if device.type == "cpu" and dtype == torch.bfloat16:
        transformer.set_attn_processor(ChunkedFluxAttnProcessor())
    if offload:
        # prefetching the next block needs a stream of its own, which only CUDA has here
        transformer.enable_group_offload(
            device, home, offload_type="block_level", num_blocks_per_group=1, use_stream=device.type == "cuda"
        )
    vae = vae.to(device, memory_format=torch.channels_last).eval()
    name = str(model) if adapter is None else f"{model} ({'no adapter' if adapter is False else adapter})"
    return Backbone(transformer.eval(), vae, prompt.to(device), config, name)


def plan_for(
    model: str | Path, adapter: str | Path | bool | None, device: torch.device, dtype: torch.dtype, memory: str
) -> Plan:
    """How to load a model here (memory.py), from its configurations alone.

    Raises:
        ModelError: they cannot be read.
        InputError: an unknown memory, or one that is too small.
    """
    folder = folder_of(model)
    source, vae = part_config(folder, "transformer"), skeleton(part_config(folder, "vae"), "vae")
    count = parameter_count(skeleton(dict(source) | {"_class_name": "FoldedFluxTransformer2DModel"}))
    method = (source.get("quantization_config") or {}).get("quant_method")
    stored = None if method is None else int(count * BITS["nf4" if method == "bitsandbytes" else "int8"] / 8)
    needs = Needs(count, parameter_count(vae), load_config(_adapter_folder(folder, adapter)).tile_size, stored)
    return plan(memory, free_bytes(device), needs, dtype, device.type, kinds_here(device))


def _adapter_folder(folder: Path | str, adapter: str | Path | bool | None) -> Path:
    """Where config, prompt and LoRA are: in the adapter's folder, or else in the model's."""
    adapted = folder if adapter is None or isinstance(adapter, bool) else folder_of(adapter)
    return download(adapted, _ADAPTER_FILES, "adapter") if isinstance(adapted, str) else adapted


def _transformer(
    folder: Path | str,
    source: dict[str, Any],
    empty: Any,
    dtype: Any,
    device: Any,
    lora: Path | None,
    at: Any,
    scheme: Any,
) -> Any:
    """Streamed from the original's safetensors; as a whole where it is folded, quantized or pickled already."""
    plain = not isinstance(empty, FoldedFluxTransformer2DModel) and not source.get("quantization_config")
    if plain and isinstance(folder, str):
        folder = download(folder, FILES, "transformer")
    if plain and has_safetensors(Path(folder, "transformer")):
        try:
            return stream(empty, Path(folder, "transformer"), dtype, device, adapter=lora, at=at, scheme=scheme)
        except ModelError:
            raise
        except Exception as error:  # safetensors and torch raise many kinds; all end in one line
            raise ModelError(explain(folder, "transformer", error)) from error
    transformer = load_part(folder, "transformer", dtype)
    if scheme and is_quantized(transformer):
        raise ModelError(f"the transformer of {folder} is quantized already; take quantize none")
    if lora:
        (attach_lora if is_quantized(transformer) else fuse_lora)(transformer, lora)
    transformer = transformer.to(device)
    if at:
        transformer = fold(transformer, *at)
    quantize_(transformer, scheme)
    declare(transformer, scheme)
    return transformer


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
