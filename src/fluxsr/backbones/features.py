"""Collect attention outputs of a transformer for the Attention Diversification Loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor

from fluxsr.backbones.families import family_of


@contextmanager
def attention_taps(
    transformer: Any,
    text_tokens: int,
    double: Sequence[int] | None = None,
    single: Sequence[int] | None = None,
) -> Iterator[list[Tensor]]:
    """Collect the attention outputs of the image tokens in chosen blocks while the context is open.

    A block is collected at its first call only, because gradient checkpointing calls it again in the backward pass.
    With non-reentrant checkpointing, which diffusers uses, gradients are the same as without it.

    Args:
        transformer: transformer of a known family, whose ``tap`` defines the attention output of a block.
        text_tokens: length L of the prompt. In single-stream blocks its tokens come before the image tokens.
        double: numbers of the double-stream blocks, from 0; None for all, () for none.
        single: numbers of the single-stream blocks, in the same form.

    Yields:
        A list to which every block appends its output (B,N,D), in the order of the blocks.

    Raises:
        ValueError: a block does not exist, or no block is chosen.
    """
    family, numbers = family_of(transformer), {"double": double, "single": single}
    chosen = [
        block
        for kind, name in family.blocks.items()
        for block in _chosen(getattr(transformer, name), numbers[kind], kind)
    ]
    if not chosen:
        raise ValueError("no block is chosen for attention taps; choose at least one, double or single")
    features: list[Tensor] = []
    seen: set[int] = set()

    def collect(block: int, output: Tensor) -> None:
        if block not in seen:
            seen.add(block)
            features.append(output)

    handles = [family.tap(block, text_tokens, partial(collect, number)) for number, block in enumerate(chosen)]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def block_counts(transformer: Any) -> dict[str, int]:
    """Return the number of blocks of each kind, in the order of ``attention_taps``."""
    return {kind: len(getattr(transformer, name)) for kind, name in family_of(transformer).blocks.items()}


def _chosen(blocks: Any, numbers: Sequence[int] | None, kind: str) -> list[Any]:
    count = len(blocks)
    numbers = range(count) if numbers is None else numbers
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong:
        raise ValueError(f"{kind}-stream block {wrong[0]} does not exist; the transformer has blocks 0 to {count - 1}")
    return [blocks[number] for number in sorted(set(numbers))]
