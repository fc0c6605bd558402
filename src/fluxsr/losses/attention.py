"""Attention Diversification Loss (ADL; FluxSR, section 3.4), because similar tokens cause a periodic pattern."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

GUARD = 1e-3  # lower bound of the norms of tokens and mean tokens, relative to the mean norm
TINY = 1e-12  # absolute lower bound, for tokens that are all zero


def adl_loss(features: Sequence[Tensor]) -> Tensor:
    """Return the mean, over blocks and tokens, of the cosine between a token and the mean token of its image.

    Args:
        features: attention outputs of the chosen blocks, image tokens only, each (B,N,D).

    Returns:
        Scalar, float32, in [-1, 1]; 1 for equal tokens. The cost is linear in N. The float32 copies of a block's tokens
        are not kept for the backward pass, but made again there, block by block. Where tokens are zero or sum to
        zero, the norms have a lower bound, which limits the gradient to about 1 / (GUARD * token norm).
    """
    if not features:
        raise ValueError("adl_loss got no attention features; choose at least one block")
    return torch.stack([recomputed(_block, x, use_reentrant=False, preserve_rng_state=False) for x in features]).mean()


def _block(tokens: Tensor) -> Tensor:
    """Return the loss of one block: the mean cosine between a token and the mean token of its image."""
    tokens = tokens.float()
    mean = tokens.mean(dim=1, keepdim=True)  # (B, 1, D)
    lengths, mean_length = tokens.norm(dim=-1), mean.norm(dim=-1)  # (B, N), (B, 1)
    # The bound is relative to the image's tokens, because a fixed one would be too large or too small.
    least = GUARD * lengths.detach().mean(dim=1, keepdim=True) + TINY
    return ((tokens * mean).sum(-1) / (lengths.maximum(least) * mean_length.maximum(least))).mean()
