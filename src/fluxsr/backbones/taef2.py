"""TAEF2, the tiny autoencoder for FLUX.2 (madebyollin/taef2), which diffusers' AutoencoderTiny cannot express.

Its innermost blocks have a side branch. Like TAEF1, it returns the latents that the transformer takes: they are
normalised, and a scale, a shift or batch-norm statistics do not apply.
"""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderTiny, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


def side_branch(width: int) -> nn.Module:
    """Return the side branch of a block. Its group norm sees the whole image."""
    widen, narrow = nn.Conv2d(width, 4 * width, 1, bias=False), nn.Conv2d(4 * width, width, 1, bias=False)
    return nn.Sequential(widen, nn.GroupNorm(4, 4 * width), nn.ReLU(), narrow)


def _add_side_branch(block: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0] + block.pool(inputs[0]),)


class AutoencoderTinyFlux2(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """AutoencoderTiny with side branches in the three innermost blocks of encoder and decoder.

    Args:
        latent_channels: channels of the latents before they are packed.
        block_out_channels: channels of the layers at each resolution; they are all equal.
        patch_size: latents that are packed into a token.
    """

    __module__ = "fluxsr"  # diffusers looks there for the class when it loads a pipeline
    use_slicing = use_tiling = False
    encode, decode = AutoencoderTiny.encode, AutoencoderTiny.decode

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 32,
        block_out_channels: tuple[int, ...] = (64, 64, 64, 64),
        patch_size: tuple[int, int] = (2, 2),
    ) -> None:
        super().__init__()
        tiny = AutoencoderTiny(
            latent_channels=latent_channels,
            encoder_block_out_channels=block_out_channels,
            decoder_block_out_channels=block_out_channels,
        )
        self.encoder, self.decoder = tiny.encoder, tiny.decoder
        for block in (*tiny.encoder.layers[-4:-1], *tiny.decoder.layers[2:5]):
            block.pool = side_branch(block_out_channels[0])
            block.register_forward_pre_hook(_add_side_branch)
