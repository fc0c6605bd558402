"""The variants of the full-size model whose inference is measured: folded, in fewer bits, compiled, offloaded."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import random_flux
import torch
from torch import nn

from fluxsr.backbone import compiling, quantize
from fluxsr.backbone.adapter import AdapterConfig
from fluxsr.backbone.fold import fold
from fluxsr.backbone.velocity import velocity
from fluxsr.pipeline import FluxSRPipeline

CONFIG = AdapterConfig(t_l=0.25, guidance=3.5)
NEEDS = {"int8": "torchao", "fp8-products": "torchao", "nf4": "bitsandbytes"}
AUTOENCODER = ("products", "summed", "channels_last", "vae_compiled")
"""What a row can change there (compiling.py); "compiled" and attentions are the transformer's."""


class Models:
    """The transformer of the row, and no other beside it."""

    def __init__(self, device: torch.device, tiny: bool):
        self.device, self.tiny, self.kind = device, tiny, ""
        self.vae: Any = random_flux.autoencoder(device, tiny)
        self.vaes: dict[tuple[str, ...], Any] = {(): self.vae}  # by recipe; all but one wait in the host's memory
        self.transformer: Any = None
        self.folding: dict[str, float] = {}  # what folding changes
        self.pictures: dict[tuple[int, ...], torch.Tensor] = {}  # of the folded model: what others are held against

    def pipeline(self, kind: str, tokens: int) -> FluxSRPipeline:
        needed = NEEDS.get(kind)
        if needed and importlib.util.find_spec(needed) is None:
            raise ImportError(f"{needed} is not installed")
        if kind != self.kind:
            self._make(kind)
        prompt = random_flux.prompt(self.device, tokens, self.tiny)
        return FluxSRPipeline(self.transformer, self.vae, prompt, CONFIG, kind)

    def autoencoder(self, recipe: tuple[str, ...], compiler: dict[str, Any]) -> Any:
        """On the device: the one of a recipe, some of AUTOENCODER; compiled once."""
        for other in self.vaes.values():
            other.to("cpu")
        if recipe not in self.vaes:
            vae = self.vaes[recipe] = deepcopy(self.vaes[()])
            if "products" in recipe:
                compiling.attend_by_products(vae)
            if "summed" in recipe:
                compiling.sum_norms(vae)
            if "channels_last" in recipe:
                vae.to(memory_format=torch.channels_last)
            if "vae_compiled" in recipe:
                vae.encoder.compile(**compiler)
                vae.decoder.compile(**compiler)
        return self.vaes[recipe].to(self.device)

    def _make(self, kind: str) -> None:
        before, self.kind = self.kind, ""  # one that fails half-way is thrown away
        if before not in ("unfolded", "folded") or kind == "unfolded":
            self.transformer = None
            gc.collect()
            torch.cuda.empty_cache()  # does nothing without CUDA
            self.transformer, before = random_flux.transformer(self.device, self.tiny), "unfolded"
        if before == "unfolded" and kind != "unfolded":
            self._fold()
        if kind not in ("unfolded", "folded"):
            self._shrink(kind)
            gc.collect()
            torch.cuda.empty_cache()
        self.kind = kind

    def _shrink(self, kind: str) -> None:
        """Put the folded transformer into another form, for good."""
        if kind == "fp8":
            self.transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
        elif kind == "fp8-products":
            from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_

            quantize_(self.transformer, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()), big)
        elif kind in ("int8", "nf4"):
            quantize.quantize_(self.transformer, quantize.scheme_of(kind, self.device, torch.bfloat16))
        elif kind == "offloaded":  # as the loader does it
            home, stream = torch.device("cpu"), self.device.type == "cuda"
            self.transformer.to(home).enable_group_offload(
                self.device, home, offload_type="block_level", num_blocks_per_group=1, use_stream=stream
            )

    @torch.no_grad()
    def _fold(self) -> None:
        prompt = random_flux.prompt(self.device, 64, self.tiny)
        z = torch.randn(1, 16, 64, 64, generator=torch.Generator().manual_seed(0)).to(self.device)
        t, guidance = CONFIG.condition
        before = velocity(self.transformer, z, t, prompt, guidance)
        self.transformer = fold(self.transformer, t, guidance, prompt.pooled_prompt_embeds)
        error = velocity(self.transformer, z, t, prompt, guidance) - before
        self.folding = {"max_abs": float(error.abs().max()), "relative": float(error.norm() / before.norm())}


def big(module: nn.Module, name: str) -> bool:
    """A linear of a block: those outside (the first and the last) are small, and precision is dear there."""
    return isinstance(module, nn.Linear) and "transformer_blocks" in name


@contextmanager
def changed(models: Models, pipe: FluxSRPipeline, changes: Sequence[str]) -> Iterator[None]:
    """The pipeline with some things otherwise, and afterwards as it was; what was compiled is found again next time."""
    compiler: dict[str, Any] = {"dynamic": False}  # a graph per size: none is slowed by what came before it
    if models.tiny:
        compiler["backend"] = "eager"  # traced, no code made: seconds instead of minutes
    torch._dynamo.config.recompile_limit = 64
    transformer, recipe = pipe.transformer, tuple(name for name in AUTOENCODER if name in changes)
    try:
        pipe.vae = models.autoencoder(recipe, compiler)
        for change in changes:
            if change == "compiled":
                transformer.compile_repeated_blocks(fullgraph=True, **compiler)
            elif change.startswith("_native"):
                transformer.set_attention_backend(change)
        yield
    finally:
        pipe.vae = models.autoencoder((), compiler)
        if any(change.startswith("_native") for change in changes):
            transformer.set_attention_backend("native")
        for block in blocks_of(transformer):
            block._compiled_call_impl = None


def blocks_of(transformer: Any) -> list[Any]:
    return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]


def compiled(transformer: Any) -> dict[str, int]:
    """How many blocks run compiled code.

    Raises:
        RuntimeError: not all of them.
    """
    blocks = blocks_of(transformer)
    count = sum(block._compiled_call_impl is not None for block in blocks)
    if count < len(blocks):
        raise RuntimeError(f"{count} of {len(blocks)} blocks are compiled")
    return {"compiled_blocks": count}


def graphs() -> int:
    """That torch.compile has made so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]
