"""Attention taps for the Attention Diversification Loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def attention_taps(
    transformer: Any,
    text_tokens: int,
    double: Sequence[int] | None = None,
    single: Sequence[int] | None = None,
) -> Iterator[list[Tensor]]:
    """Collect the attention outputs of chosen blocks, image tokens only, while the context is open.

    Double-stream blocks give the output after the output projection and before the gate; single-stream
    blocks have no output projection of their own and give the attention itself (which of the two the paper
    means is open, and so is the choice of blocks).

    A block is collected once, at its first call. Gradient checkpointing calls blocks again during backward;
    what was collected then belongs to the graph of the forward pass, and its gradient is the same as without
    (with non-reentrant checkpointing, which is what diffusers does; the reentrant kind has no graph there).

    Args:
        transformer: FluxTransformer2DModel.
        text_tokens: length L of the prompt; single-stream blocks carry it before the image.
        double: which double-stream blocks, counted from 0; None for all, () for none.
        single: which single-stream blocks, likewise.

    Yields:
        A list that fills with (B,N,D), in the order of the blocks.

    Raises:
        ValueError: a block that is not there, or none chosen.
    """
    chosen = [
        *_chosen(transformer.transformer_blocks, double, "double"),
        *_chosen(transformer.single_transformer_blocks, single, "single"),
    ]
    if not chosen:
        raise ValueError("no block is chosen for attention taps; choose at least one, double or single")
    features: list[Tensor] = []
    seen: set[int] = set()

    def tap(module: Any, _inputs: Any, output: Any) -> None:
        if id(module) not in seen:
            seen.add(id(module))
            features.append(output[0] if isinstance(output, tuple) else output[:, text_tokens:])

    handles = [block.attn.register_forward_hook(tap) for block in chosen]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def _chosen(blocks: Any, numbers: Sequence[int] | None, stream: str) -> list[Any]:
    count = len(blocks)
    numbers = range(count) if numbers is None else numbers
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong:
        raise ValueError(f"{stream}-stream block {wrong[0]} is not there; the transformer has 0 to {count - 1}")
    return [blocks[number] for number in sorted(set(numbers))]
