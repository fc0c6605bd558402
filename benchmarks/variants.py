"""The variants of the full-size model whose inference is measured: folded, in fewer bits, compiled."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import random_flux
import torch

from fluxsr.backbone.adapter import AdapterConfig
from fluxsr.backbone.fold import fold
from fluxsr.backbone.velocity import velocity
from fluxsr.pipeline import FluxSRPipeline

CONFIG = AdapterConfig(t_l=0.25, guidance=3.5)


class Models:
    """The transformer of the row, and no other beside it."""

    def __init__(self, device: torch.device, tiny: bool):
        self.device, self.tiny, self.kind = device, tiny, ""
        self.vae: Any = random_flux.autoencoder(device, tiny)
        self.transformer: Any = None
        self.folding: dict[str, float] = {}  # what folding changes

    def pipeline(self, kind: str, tokens: int) -> FluxSRPipeline:
        if kind == "int8" and importlib.util.find_spec("torchao") is None:
            raise ImportError("torchao is not installed")
        if kind != self.kind:
            self._make(kind)
        prompt = random_flux.prompt(self.device, tokens, self.tiny)
        return FluxSRPipeline(self.transformer, self.vae, prompt, CONFIG, kind)

    def _make(self, kind: str) -> None:
        before, self.kind = self.kind, ""  # one that fails half-way is thrown away
        if before not in ("unfolded", "folded") or kind == "unfolded":
            self.transformer = None
            gc.collect()
            torch.cuda.empty_cache()  # does nothing without CUDA
            self.transformer, before = random_flux.transformer(self.device, self.tiny), "unfolded"
        if before == "unfolded" and kind != "unfolded":
            self._fold()
        if kind == "fp8":
            self.transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
        elif kind == "int8":
            from torchao.quantization import Int8WeightOnlyConfig, quantize_

            quantize_(self.transformer, Int8WeightOnlyConfig())
        self.kind = kind

    @torch.no_grad()
    def _fold(self) -> None:
        prompt = random_flux.prompt(self.device, 64, self.tiny)
        z = torch.randn(1, 16, 64, 64, generator=torch.Generator().manual_seed(0)).to(self.device)
        before = velocity(self.transformer, z, CONFIG.t_l, prompt, CONFIG.guidance)
        self.transformer = fold(self.transformer, CONFIG.t_l, CONFIG.guidance, prompt.pooled_prompt_embeds)
        error = velocity(self.transformer, z, CONFIG.t_l, prompt, CONFIG.guidance) - before
        self.folding = {"max_abs": float(error.abs().max()), "relative": float(error.norm() / before.norm())}


@contextmanager
def changed(pipe: FluxSRPipeline, changes: Sequence[str], tiny: bool) -> Iterator[None]:
    """The pipeline with some things otherwise, and afterwards as it was."""
    blocks = [*pipe.transformer.transformer_blocks, *pipe.transformer.single_transformer_blocks]
    try:
        for change in changes:
            if change == "compiled":
                torch._dynamo.reset()
                torch._dynamo.utils.counters.clear()
                backend = {"backend": "eager"} if tiny else {}  # traced, no code made: seconds instead of minutes
                pipe.transformer.compile_repeated_blocks(fullgraph=True, **backend)
            elif change == "channels_last":
                pipe.vae.to(memory_format=torch.channels_last)
            else:
                pipe.transformer.set_attention_backend(change)
        yield
    finally:
        pipe.vae.to(memory_format=torch.contiguous_format)
        if any(change.startswith("_native") for change in changes):
            pipe.transformer.set_attention_backend("native")
        for block in blocks:
            block._compiled_call_impl = None


def compiled(pipe: FluxSRPipeline) -> dict[str, int]:
    """How many blocks run compiled code, and of how many graphs.

    Raises:
        RuntimeError: not all of them.
    """
    blocks = [*pipe.transformer.transformer_blocks, *pipe.transformer.single_transformer_blocks]
    count = sum(block._compiled_call_impl is not None for block in blocks)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    if count < len(blocks) or not graphs:
        raise RuntimeError(f"{count} of {len(blocks)} blocks are compiled, of {graphs} graphs")
    return {"compiled_blocks": count, "graphs": graphs}
