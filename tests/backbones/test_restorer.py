"""The restorer: the identity at first, saved with its autoencoder, and applied to LR images alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.backbones import latents
from fluxsr.backbones.parts import load_part
from fluxsr.backbones.restorer import RestoringAutoencoder, with_restorer
from fluxsr.backbones.tiny import build_autoencoder
from fluxsr.imaging.resize import bicubic
from fluxsr.imaging.tiling import tiles


@pytest.fixture
def vae() -> RestoringAutoencoder:
    torch.manual_seed(0)
    return with_restorer(build_autoencoder([4, 8], [1, 1], 2), width=4, growth=2, blocks=1)


def test_a_new_restorer_is_the_identity_and_the_autoencoder_does_not_change(image: Tensor) -> None:
    torch.manual_seed(0)
    plain = build_autoencoder([4, 8], [1, 1], 2)
    vae = with_restorer(plain, width=4, growth=2, blocks=1)
    assert torch.equal(vae.restorer(image), image)
    assert torch.equal(latents.restored(vae, image), image)
    assert with_restorer(vae, width=9, growth=9, blocks=9) is vae


def test_it_is_applied_to_lr_images_alone(vae: RestoringAutoencoder, image: Tensor) -> None:
    before = latents.encode(vae, image)
    torch.nn.init.zeros_(vae.restorer.share)
    torch.nn.init.ones_(vae.restorer.last.bias)  # draws a white image
    torch.testing.assert_close(latents.restored(vae, image), torch.ones_like(image))
    assert torch.equal(latents.encode(vae, image), before)


def test_a_step_adds_its_change_to_the_restored_image_in_float32(vae: RestoringAutoencoder, image: Tensor) -> None:
    z = latents.encode(vae, image)
    assert torch.equal(latents.decode_step(vae, z, z, image), image)
    changed = latents.decode(vae, z + 1) - latents.decode(vae, z)
    torch.testing.assert_close(latents.decode_step(vae, z + 1, z, image), image + changed)
    assert torch.equal(latents.restored(vae.bfloat16(), image), image)


def test_without_a_restorer_a_step_is_decoded_as_the_paper_does(image: Tensor) -> None:
    plain = build_autoencoder([4, 8], [1, 1], 2)
    z = latents.encode(plain, image)
    assert torch.equal(latents.decode_step(plain, z + 1, z, image), latents.decode(plain, z + 1))


def test_it_is_saved_and_loaded_with_its_autoencoder(vae: RestoringAutoencoder, image: Tensor, tmp_path: Path) -> None:
    torch.nn.init.normal_(vae.restorer.last.weight)
    vae.save_pretrained(tmp_path / "vae")
    loaded = load_part(tmp_path, "vae", torch.float32)
    assert isinstance(loaded, RestoringAutoencoder)
    torch.testing.assert_close(latents.restored(loaded, image), latents.restored(vae, image))


def test_it_restores_a_tile_like_the_whole_image_except_near_its_border(vae: RestoringAutoencoder) -> None:
    torch.nn.init.normal_(vae.restorer.last.weight)
    image = torch.rand(1, 3, 32, 416, generator=torch.Generator().manual_seed(0))
    whole, tile = vae.restorer(image), vae.restorer(image[..., 32:384])
    reach = 144  # a bound: 17 convolutions at 16/3 pixels, those after them, and the resizing, rounded up to blocks
    torch.testing.assert_close(tile[..., reach:-reach], whole[..., 32 + reach : 384 - reach])


def test_tiles_lie_on_the_blocks_in_which_the_image_is_reduced(vae: RestoringAutoencoder) -> None:
    multiple = latents.tile_multiple(vae)
    assert multiple % 16 == 0 and multiple % latents.pixel_multiple(vae) == 0
    grid = tiles.grid(1024, 776, 288, 32, multiple)
    assert all(place % 16 == 0 for axis in (grid.rows, grid.columns) for place in (axis.tile, *axis.starts))


def test_it_draws_an_image_of_three_quarters_of_the_lr_images_sides(vae: RestoringAutoencoder) -> None:
    sizes = []
    vae.restorer.first.register_forward_hook(lambda layer, args, output: sizes.append(output.shape[-2:]))
    for size in ((32, 48), (40, 56)):
        image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(vae.restorer(image), image)
    assert sizes == [(6, 9), (9, 12)]  # the second is padded to 48 x 64


def test_a_share_of_what_the_result_has_lost_is_added_back(vae: RestoringAutoencoder) -> None:
    torch.nn.init.normal_(vae.restorer.last.weight)
    lr = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    image = bicubic(lr, (64, 64))

    def lost(share: float) -> float:
        torch.nn.init.constant_(vae.restorer.share, share)
        return float((F.avg_pool2d(vae.restorer(image), 4) - F.avg_pool2d(image, 4)).abs().mean())

    assert lost(1) < lost(0.5) < lost(0)
    assert lost(1) < lost(0) / 3


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
