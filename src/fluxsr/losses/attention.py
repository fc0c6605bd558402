"""Attention Diversification Loss (ADL; FluxSR, section 3.4): tokens that look alike show as a periodic pattern."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def adl_loss(features: Sequence[Tensor]) -> Tensor:
    """Mean over blocks and tokens of the cosine between a token and the mean token of its image.

    Args:
        features: attention outputs of the chosen blocks, image tokens only, each (B,N,D).

    Returns:
        Scalar, float32, in [-1, 1]: 1 for equal tokens. Linear in N, never N x N. The cosine is guarded where
        tokens sum to zero or are zero (value and gradient stay finite). Every image is alone with its mean.
    """
    if not features:
        raise ValueError("adl_loss got no attention features; choose at least one block")
    return torch.stack([_to_mean_token(tokens.float()).mean() for tokens in features]).mean()


def _to_mean_token(tokens: Tensor) -> Tensor:
    return F.cosine_similarity(tokens, tokens.mean(dim=1, keepdim=True), dim=-1, eps=1e-6)  # (B, N)
