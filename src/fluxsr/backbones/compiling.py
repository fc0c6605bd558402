"""FLUX for GPUs, compiled: the transformer's blocks, and the autoencoder in a form that compiles into few passes.

AutoencoderKL as it comes is slow on a GPU: its two attentions have one head of 512 channels, for which there is no
fast kernel, and its group norms cannot be had in channels_last, in which the convolutions run. Here attention is plain
matrix products, and a group norm is sums over pixels, which the compiler makes one pass over memory in that format.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from torch import Tensor, nn

from fluxsr.backbones.attention import chunked_attention

ROWS = 4096  # query rows of the autoencoder's attention at a time: a tile of 1024 px takes 128 MiB of scores
DEEP = 256  # channels of a head up to which GPUs have fast attention
GRAPHS = 64  # of a block; a size takes two (the first single block's input lies otherwise in memory), torch allows 8


class ProductsAttnProcessor:
    """diffusers' AttnProcessor2_0 for pictures, by products over slices of the queries in place of SDPA."""

    def __call__(  # encoder_hidden_states, attention_mask and temb: an autoencoder passes None
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any, attention_mask: Any, temb: Any
    ) -> Tensor:
        x = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)  # (B, N, C)
        query, key, value = (layer(x).unflatten(-1, (attn.heads, -1)) for layer in (attn.to_q, attn.to_k, attn.to_v))
        x = attn.to_out[0](chunked_attention(query, key, value, ROWS).flatten(2))
        x = x.transpose(1, 2).reshape(hidden_states.shape)
        return (x + hidden_states) / attn.rescale_output_factor


class SummedGroupNorm(nn.GroupNorm):
    """GroupNorm that compiles well in channels_last: sums over pixels, then over a group's channels; eager as ever."""

    def forward(self, input: Tensor) -> Tensor:
        return self.summed(input) if torch.compiler.is_compiling() else super().forward(input)

    def summed(self, x: Tensor) -> Tensor:
        """(B,C,...) to the same, in float32 inside."""
        wide = x.float()
        over = tuple(range(2, x.dim()))
        channels = torch.stack([wide.sum(over), (wide * wide).sum(over)])  # (2, B, C)
        mean, square = channels.unflatten(-1, (self.num_groups, -1)).sum(-1) / (x[0].numel() // self.num_groups)
        each = (self.num_groups, self.num_channels // self.num_groups)
        scale = ((square - mean * mean).clamp(min=0) + self.eps).rsqrt()[..., None] * self.weight.float().view(each)
        shift = self.bias.float().view(each) - mean[..., None] * scale  # (B, groups, channels of a group)
        scale, shift = (part.reshape(*x.shape[:2], *[1] * len(over)) for part in (scale, shift))
        return (wide * scale + shift).to(x.dtype)


def attend_by_products(vae: Any) -> None:
    """Give an AutoencoderKL's attentions ``ProductsAttnProcessor``, where their heads are too deep for GPU kernels."""
    for module in vae.modules():
        if hasattr(module, "to_q") and module.to_q.out_features // module.heads > DEEP:
            module.set_processor(ProductsAttnProcessor())


def sum_norms(vae: Any) -> None:
    """Replace an autoencoder's group norms by ``SummedGroupNorm`` with the same weights, in place."""
    norms = [(name, module) for name, module in vae.named_modules() if type(module) is nn.GroupNorm]
    for name, norm in norms:
        summed = SummedGroupNorm(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        summed.weight, summed.bias = norm.weight, norm.bias
        vae.set_submodule(name, summed.train(norm.training))


def compile_(transformer: Any, vae: Any, **options: Any) -> None:
    """Compile both in place, on the first call at every size: most of a minute, for much work at few sizes.

    A size has a graph of its own ("dynamic" is off): one that serves several sizes would be slower at each.

    Args:
        transformer: FLUX's, of which the repeated blocks are compiled, each kind once; None leaves it as it is.
        vae: FLUX.1's or FLUX.2's becomes channels_last and is compiled; another one is left as it is.
        options: of ``torch.compile``.
    """
    options = {"dynamic": False, **options}
    if transformer is not None:
        transformer.compile_repeated_blocks(**options)
        transformer.register_forward_pre_hook(_allow_graphs)
    if isinstance(vae, (AutoencoderKL, AutoencoderKLFlux2)):
        attend_by_products(vae)
        sum_norms(vae)
        vae.to(memory_format=torch.channels_last)
        vae.encoder.compile(**options)
        vae.decoder.compile(**options)


def _allow_graphs(*_: Any) -> None:
    """More sizes than torch compiles by itself, after which code runs as it is; its settings are a thread's own."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
