"""Attention taps for the Attention Diversification Loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def attention_taps(transformer: Any, text_tokens: int) -> Iterator[list[Tensor]]:
    """Collect the attention outputs of every block, image tokens only, while the context is open.

    Double-stream blocks give the output after the output projection and before the gate; single-stream
    blocks have no output projection of their own and give the attention itself (which of the two the paper
    means is open). Close the context before backward: the recomputation of gradient checkpointing then
    finds no tap.

    Args:
        transformer: FluxTransformer2DModel.
        text_tokens: length L of the prompt; single-stream blocks carry it before the image.

    Yields:
        A list that fills with (B,N,D), in the order of the blocks.
    """
    features: list[Tensor] = []

    def tap(_module: Any, _inputs: Any, output: Any) -> None:
        features.append(output[0] if isinstance(output, tuple) else output[:, text_tokens:])

    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    handles = [block.attn.register_forward_hook(tap) for block in blocks]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()
