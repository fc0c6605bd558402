"""Attention Diversification Loss (ADL; FluxSR, section 3.4): tokens that look alike show as a periodic pattern."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

GUARD = 1e-3  # tokens and mean tokens shorter than this share of the mean length count as so long
TINY = 1e-12  # and where all tokens are zero


def adl_loss(features: Sequence[Tensor]) -> Tensor:
    """Mean over blocks and tokens of the cosine between a token and the mean token of its image.

    Args:
        features: attention outputs of the chosen blocks, image tokens only, each (B,N,D).

    Returns:
        Scalar, float32, in [-1, 1]: 1 for equal tokens. Linear in N, never N x N. The cosine is guarded where
        tokens sum to zero or are zero: there the gradient is bounded, by about 1 / GUARD over the tokens' length.
        Every image is alone with its mean.
    """
    if not features:
        raise ValueError("adl_loss got no attention features; choose at least one block")
    return torch.stack([_to_mean_token(tokens.float()).mean() for tokens in features]).mean()


def _to_mean_token(tokens: Tensor) -> Tensor:
    mean = tokens.mean(dim=1, keepdim=True)  # (B, 1, D)
    lengths, mean_length = tokens.norm(dim=-1), mean.norm(dim=-1)  # (B, N), (B, 1)
    # A guard in proportion to the image's tokens: a fixed one would be all or nothing for the gradient.
    least = GUARD * lengths.detach().mean(dim=1, keepdim=True) + TINY
    return (tokens * mean).sum(-1) / (lengths.maximum(least) * mean_length.maximum(least))  # (B, N)
