"""TAEF2, the tiny autoencoder for FLUX.2 (madebyollin/taef2), which diffusers' AutoencoderTiny cannot express.

Its innermost blocks have a side branch. Like TAEF1, it returns the latents that the transformer takes: they are
normalised, and a scale, a shift or batch-norm statistics do not apply.
"""

from __future__ import annotations

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.models.autoencoders.vae import DecoderOutput, DecoderTiny, EncoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn


class SideBranchBlock(AutoencoderTinyBlock):
    """A block of AutoencoderTiny that first adds a wide 1x1 branch, whose group norm sees the whole image."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, "relu")
        self.pool = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.GroupNorm(4, 4 * width),
            nn.ReLU(),
            nn.Conv2d(4 * width, width, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + self.pool(x))


class AutoencoderTinyFlux2(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """AutoencoderTiny with side branches in the three innermost blocks of encoder and decoder.

    Args:
        latent_channels: channels of the latents before they are packed.
        block_out_channels: channels of the layers at each resolution; they are all equal.
        patch_size: latents that are packed into a token.
    """

    __module__ = "fluxsr"  # diffusers looks there for the class when it loads a pipeline

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 32,
        block_out_channels: tuple[int, ...] = (64, 64, 64, 64),
        patch_size: tuple[int, int] = (2, 2),
    ) -> None:
        super().__init__()
        self.encoder = EncoderTiny(3, latent_channels, (1, 3, 3, 3), block_out_channels, "relu")
        self.decoder = DecoderTiny(latent_channels, 3, (3, 3, 3, 1), block_out_channels, 2, "relu", "nearest")
        for layers, innermost in ((self.encoder.layers, range(-4, -1)), (self.decoder.layers, range(2, 5))):
            for place in innermost:
                layers[place] = SideBranchBlock(block_out_channels[0])

    @apply_forward_hook
    def encode(self, images: Tensor) -> AutoencoderTinyOutput:
        return AutoencoderTinyOutput(latents=self.encoder(images))

    @apply_forward_hook
    def decode(self, latents: Tensor) -> DecoderOutput:
        return DecoderOutput(sample=self.decoder(latents))
