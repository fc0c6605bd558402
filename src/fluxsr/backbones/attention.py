"""Attention for CPUs with bfloat16 units: plain matrix products over slices of the queries.

On these units the products are faster than PyTorch's CPU flash attention; on any other CPU they are far slower, and
``loading`` leaves diffusers' own processor there. The scores are rounded to bfloat16, which flash attention does not
do: the error of random inputs is twice as large, of very peaked ones six to eight times. In pictures it does not show:
of the bundled model's error against float32, 58.1 dB in both, 0.03 dB come from here (docs/benchmarks.md).
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor
from torch import Tensor

ROWS = 512  # query rows at a time: the scores of a slice stay in cache


def chunked_attention(query: Tensor, key: Tensor, value: Tensor, rows: int = ROWS) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for (B,N,heads,d); memory grows with rows x N, not N x N."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # (B, heads, N, d)
    query = query * query.shape[-1] ** -0.5
    key = key.transpose(2, 3).contiguous()
    slices = [(some @ key).softmax(-1) @ value for some in query.split(rows, dim=2)]
    return torch.cat(slices, dim=2).transpose(1, 2)


class ChunkedFluxAttnProcessor:
    """diffusers' FluxAttnProcessor with chunked_attention in place of the SDPA dispatch.

    It is set for a CPU; a model that is moved to another device gets diffusers' own there.
    """

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        if hidden_states.device.type != "cpu":
            return FluxAttnProcessor()(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)
        if attention_mask is not None:
            raise ValueError("chunked attention takes no mask")
        query, key, value = (
            projection(hidden_states).unflatten(-1, (-1, attn.head_dim))
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = attn.norm_q(query), attn.norm_k(key)
        if encoder_hidden_states is not None:
            text = (
                projection(encoder_hidden_states).unflatten(-1, (-1, attn.head_dim))
                for projection in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            )
            text_query, text_key, text_value = text
            query = torch.cat([attn.norm_added_q(text_query), query], dim=1)
            key = torch.cat([attn.norm_added_k(text_key), key], dim=1)
            value = torch.cat([text_value, value], dim=1)
        if image_rotary_emb is not None:
            query = apply_rotary_emb(query, image_rotary_emb, sequence_dim=1)
            key = apply_rotary_emb(key, image_rotary_emb, sequence_dim=1)
        out = chunked_attention(query, key, value).flatten(2, 3)
        if encoder_hidden_states is None:
            return out
        length = encoder_hidden_states.shape[1]
        image = attn.to_out[1](attn.to_out[0](out[:, length:]))
        return image, attn.to_add_out(out[:, :length])
