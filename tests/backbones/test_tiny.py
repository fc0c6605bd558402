from __future__ import annotations

import torch

from fluxsr.backbones.tiny import build_autoencoder, build_transformer


def test_a_fresh_autoencoder_has_blocks_that_are_the_identity() -> None:
    vae = build_autoencoder((8, 8, 16, 16), (0, 1, 1, 1), 4)
    blocks = [module for module in vae.modules() if type(module).__name__ == "ResBlock"]
    assert len(blocks) == 6
    for block in blocks:
        x = torch.randn(1, block.conv1.in_channels, 4, 4)
        assert torch.equal(block(x), x)


@torch.no_grad()
def test_an_image_decodes_in_pieces_as_in_the_whole_away_from_the_cut() -> None:
    torch.manual_seed(0)
    vae = build_autoencoder((8, 8, 8, 8), (0, 1, 1, 1), 4).eval()
    for parameter in vae.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)  # away from the identity
    z = torch.randn(1, 4, 4, 40)
    whole, piece = vae.decode(z).sample, vae.decode(z[..., :24]).sample
    torch.testing.assert_close(piece[..., :64], whole[..., :64], rtol=1e-4, atol=1e-5)


def test_the_transformer_has_flux_s_head_and_position_axes() -> None:
    transformer = build_transformer(4, 1, 1, 1, 16)
    assert transformer.config.in_channels == 16 and transformer.inner_dim == 128
    assert tuple(transformer.config.axes_dims_rope) == (16, 56, 56)
    assert not transformer.config.guidance_embeds
