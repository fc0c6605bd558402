"""Build random models of diffusers' classes that are small enough to be trained on a laptop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderDC, FluxTransformer2DModel


def build_autoencoder(
    widths: Sequence[int],
    layers: Sequence[int],
    latent_channels: int,
    decoder_layers: Sequence[int] = (),
    upsample: str = "pixel_shuffle",
) -> AutoencoderDC:
    """Build an AutoencoderDC with plain residual blocks, without attention.

    Its norms act on single pixels, unlike AutoencoderKL's GroupNorm. A tile therefore decodes exactly like the whole
    image, except near its border. A level with 0 layers has no convolution at its size. With layers[0] = 0, the only
    operation at full size is the last pixel shuffle, which saves much time.

    Args:
        widths: channels per level, full size first. The first value is unused if layers[0] is 0.
        layers: residual blocks per level.
        latent_channels: channels of the latents, which must divide the last width.
        decoder_layers: residual blocks per level of the decoder. The default is ``layers``.
        upsample: "pixel_shuffle", or "interpolate" (nearest neighbour and a convolution), which causes no lattice.
    """
    vae = AutoencoderDC(
        latent_channels=latent_channels,
        encoder_block_out_channels=tuple(widths),
        decoder_block_out_channels=tuple(widths),
        encoder_layers_per_block=tuple(layers),
        decoder_layers_per_block=tuple(decoder_layers or layers),
        upsample_block_type=upsample,
        encoder_qkv_multiscales=((),) * len(widths),
        decoder_qkv_multiscales=((),) * len(widths),
        decoder_conv_act_fn="silu",
    )
    with torch.no_grad():  # every residual block starts as the identity
        for name, parameter in vae.named_parameters():
            if name.endswith("norm.weight"):
                parameter.zero_()
    return vae.to(memory_format=torch.channels_last)


def build_transformer(
    latent_channels: int,
    num_layers: int,
    num_single_layers: int,
    num_attention_heads: int,
    text_dim: int,
    head_dim: int = 128,
) -> FluxTransformer2DModel:
    """Build a small FluxTransformer2DModel, whose position axes have the same proportions as in FLUX.1."""
    return FluxTransformer2DModel(
        in_channels=latent_channels * 4,
        num_layers=num_layers,
        num_single_layers=num_single_layers,
        attention_head_dim=head_dim,
        axes_dims_rope=(head_dim // 8, head_dim * 7 // 16, head_dim * 7 // 16),
        num_attention_heads=num_attention_heads,
        joint_attention_dim=text_dim,
        pooled_projection_dim=text_dim,
        guidance_embeds=False,
    )
