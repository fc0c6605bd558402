"""Compile FLUX for GPUs: the transformer's blocks, and the autoencoder after changes that make it fast.

diffusers' AutoencoderKL is slow on a GPU for two reasons. Its two attention layers have one head of 512 channels, for
which there is no fast kernel. Its group norms have no channels_last kernel, but the convolutions run in that format.
Here attention is computed as plain matrix products. A group norm is computed from sums over pixels, which the compiler
turns into one pass over memory.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from torch import Tensor, nn

from fluxsr.backbones.attention import chunked_attention

ROWS = 4096  # query rows per slice of the autoencoder's attention; a tile of 1024 px needs 128 MiB for the scores
DEEP = 256  # largest number of channels per head for which GPUs have fast attention
GRAPHS = 64  # compiled graphs per block. A size needs two, because the first single block's input has other strides


class ProductsAttnProcessor:
    """Replacement for diffusers' AttnProcessor2_0 for images, with ``chunked_attention`` instead of SDPA."""

    def __call__(  # an autoencoder passes None for encoder_hidden_states, attention_mask and temb
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any, attention_mask: Any, temb: Any
    ) -> Tensor:
        x = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)  # (B, N, C)
        query, key, value = (layer(x).unflatten(-1, (attn.heads, -1)) for layer in (attn.to_q, attn.to_k, attn.to_v))
        x = attn.to_out[0](chunked_attention(query, key, value, ROWS).flatten(2))
        x = x.transpose(1, 2).reshape(hidden_states.shape)
        return (x + hidden_states) / attn.rescale_output_factor


class SummedGroupNorm(nn.GroupNorm):
    """GroupNorm that compiles well in channels_last: it sums over pixels and then over the channels of a group.

    It behaves like ``nn.GroupNorm`` outside of compiled code.
    """

    def forward(self, input: Tensor) -> Tensor:
        return self.summed(input) if torch.compiler.is_compiling() else super().forward(input)

    def summed(self, x: Tensor) -> Tensor:
        """Return the normalised tensor, of shape (B,C,...) like ``x``. It is computed in float32."""
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
    """Set ``ProductsAttnProcessor`` on the attention layers whose heads are too wide for fast GPU kernels."""
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
    """Compile a transformer and an autoencoder in place.

    The first call at every size compiles and takes most of a minute. Every size has its own graph ("dynamic" is off),
    because a graph for several sizes would be slower at each.

    Args:
        transformer: transformer of FLUX, whose repeated blocks are compiled, each kind once; or None.
        vae: autoencoder. One of FLUX.1 or FLUX.2 is converted to channels_last and compiled, others stay unchanged.
        options: options of ``torch.compile``.
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
    """Raise torch's limit of 8 graphs, after which code would run uncompiled. The limit is a setting per thread."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
