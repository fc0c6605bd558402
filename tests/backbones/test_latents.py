from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline

from fluxsr.backbones import latents
from fluxsr.backbones.flux1 import image_ids, pack, unpack
from fluxsr.backbones.tiny import build_autoencoder


@pytest.fixture(scope="module")
def dc() -> Any:
    torch.manual_seed(0)
    vae = build_autoencoder((8, 8, 8, 16), (0, 1, 1, 1), 4).eval()
    vae.register_to_config(scaling_factor=0.7)
    return vae


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_encode_is_the_shifted_and_scaled_mode_of_the_posterior(vae: Any, images: torch.Tensor) -> None:
    posterior = vae.encode(images * 2 - 1).latent_dist
    z = latents.encode(vae, images)
    torch.testing.assert_close(z, (posterior.mean - 0.1159) * 0.3611)
    assert z.shape == (2, 4, 4, 6)
    assert torch.equal(z, latents.encode(vae, images)), "a sample of the posterior would differ"


@torch.no_grad()
def test_encode_takes_the_latent_of_an_autoencoder_without_posterior(dc: Any, images: torch.Tensor) -> None:
    z = latents.encode(dc, images)
    torch.testing.assert_close(z, dc.encode(images * 2 - 1).latent * 0.7)
    assert z.shape == (2, 4, 4, 6)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vae", "dc"])
def test_decode_gives_images_of_zero_to_one_from_normalised_latents(
    name: str, request: pytest.FixtureRequest, images: torch.Tensor
) -> None:
    vae = request.getfixturevalue(name)
    raw = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(2))
    shift = 0.1159 if name == "vae" else 0.0
    z = (raw - shift) * vae.config.scaling_factor
    torch.testing.assert_close(latents.decode(vae, z), vae.decode(raw).sample / 2 + 0.5)
    assert latents.decode(vae, z).shape == images.shape


@pytest.mark.parametrize("name", ["vae", "dc"])
def test_denormalise_inverts_normalise(name: str, request: pytest.FixtureRequest) -> None:
    vae = request.getfixturevalue(name)
    z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(latents.denormalise(vae, latents.normalise(vae, z)), z)


@torch.no_grad()
def test_latents_and_images_are_float32_whatever_the_autoencoder_computes_in(vae: Any, images: torch.Tensor) -> None:
    half = AutoencoderKL.from_config(vae.config).to(torch.bfloat16).eval()
    z = latents.encode(half, images)
    assert z.dtype == latents.decode(half, z).dtype == torch.float32


def test_pack_and_unpack_are_the_flux_pipelines() -> None:
    z = torch.randn(2, 4, 8, 6)
    tokens = pack(z)
    assert torch.equal(tokens, FluxPipeline._pack_latents(z, 2, 4, 8, 6))
    assert torch.equal(unpack(tokens, 8, 6), z)
    assert torch.equal(FluxPipeline._unpack_latents(tokens, 64, 48, 8), z)


def test_image_ids_are_the_flux_pipelines() -> None:
    ids = image_ids(8, 6)
    assert torch.equal(ids, FluxPipeline._prepare_latent_image_ids(2, 4, 3, "cpu", torch.float32))


def test_image_ids_tell_every_row_of_a_large_image_apart() -> None:
    assert len(image_ids(1200, 2)[:, 1].unique()) == 600


@torch.no_grad()
@pytest.mark.parametrize("name", ["vae", "dc"])
def test_pixel_multiple_is_the_side_of_one_token(name: str, request: pytest.FixtureRequest) -> None:
    vae = request.getfixturevalue(name)
    assert latents.pixel_multiple(vae) == 16
    assert pack(latents.encode(vae, torch.rand(1, 3, 16, 16))).shape == (1, 1, 16)


def decoded_gradient(vae: Any, z: torch.Tensor, checkpoint: bool) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Image, gradient of a loss on it, and the bytes kept for the backward pass (without the parameters)."""
    z = z.clone().requires_grad_()
    kept: dict[int, int] = {}
    parameters = {p.data_ptr() for p in vae.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        image = latents.decode(vae, z, checkpoint=checkpoint)
    (gradient,) = torch.autograd.grad(image.square().sum(), z)
    return image.detach(), gradient, sum(kept.values())


@pytest.mark.parametrize("name", ["vae", "dc"])
def test_checkpointed_decoding_has_the_same_image_and_gradient_and_keeps_less(
    name: str, request: pytest.FixtureRequest
) -> None:
    vae = copy.deepcopy(request.getfixturevalue(name))
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    image, gradient, kept = decoded_gradient(vae, z, checkpoint=False)
    again, saved_gradient, saved_kept = decoded_gradient(vae, z, checkpoint=True)
    assert torch.equal(image, again)
    torch.testing.assert_close(gradient, saved_gradient)
    assert saved_kept < kept / 2


@pytest.mark.parametrize("name", ["vae", "dc"])
def test_a_crops_loss_reaches_the_latents_under_it_and_no_others(name: str, request: pytest.FixtureRequest) -> None:
    vae = copy.deepcopy(request.getfixturevalue(name))
    z = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(5)).requires_grad_()
    crop, (top, left) = latents.random_crop(z, 4, torch.Generator().manual_seed(1))
    latents.decode(vae, crop, checkpoint=True).square().sum().backward()
    touched = z.grad.abs().sum((0, 1)) > 0
    expected = torch.zeros(9, 7, dtype=torch.bool)
    expected[top : top + 4, left : left + 4] = True
    assert torch.equal(touched, expected)


def test_crops_reach_every_place_alike_and_take_no_part_of_the_batch() -> None:
    z = torch.arange(30.0).view(1, 1, 5, 6)
    generator = torch.Generator().manual_seed(0)
    places = [latents.random_crop(z, 3, generator)[1] for _ in range(1200)]
    counts = Counter(places)
    assert set(counts) == {(top, left) for top in range(3) for left in range(4)}
    assert min(counts.values()) > 60 and max(counts.values()) < 140  # 100 each
    one, many = (latents.random_crop(torch.zeros(n, 4, 9, 9), 3, torch.Generator().manual_seed(2))[1] for n in (1, 8))
    assert one == many


def test_a_crop_larger_than_the_latent_is_the_latent() -> None:
    z = torch.randn(1, 4, 5, 8)
    crop, place = latents.random_crop(z, 6, torch.Generator().manual_seed(0))
    assert crop.shape == (1, 4, 5, 6) and place[0] == 0
    assert torch.equal(latents.random_crop(z, 99, torch.Generator())[0], z)
    with pytest.raises(ValueError, match="side is 0"):
        latents.random_crop(z, 0, torch.Generator())


@pytest.mark.parametrize("name", ["vae", "dc"])
def test_pixels_of_a_crop_are_where_it_decodes_to(name: str, request: pytest.FixtureRequest) -> None:
    vae = request.getfixturevalue(name)
    images = torch.arange(32.0)[:, None] + torch.arange(48.0) / 100
    pixels = latents.crop_pixels(vae, images.expand(1, 3, 32, 48), (1, 2), 2)
    assert torch.equal(pixels[0, 0], images[8:24, 16:32])
    with torch.no_grad():
        assert latents.decode(vae, torch.zeros(1, 4, 2, 2)).shape == pixels.shape
    assert latents.crop_pixels(vae, images.expand(1, 3, 32, 48), (0, 0), 99).shape == (1, 3, 32, 48)


@torch.no_grad()
def test_a_margin_as_wide_as_the_image_gives_the_pixels_of_the_whole(vae: Any, dc: Any) -> None:
    z = torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(6))
    for model in (vae, dc):
        for place in ((0, 0), (3, 2), (5, 3)):
            expected = latents.crop_pixels(model, latents.decode(model, z), place, 3)
            assert torch.equal(latents.decode_crop(model, z, place, 3, margin=8), expected)


@torch.no_grad()
def test_a_margin_brings_a_crop_nearer_to_the_whole(dc: Any) -> None:
    """The norms of AutoencoderDC act on single pixels: only the cut tells a crop from the whole."""
    z = torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(7))
    expected = latents.crop_pixels(dc, latents.decode(dc, z), (8, 9), 6)
    errors = [
        float((latents.decode_crop(dc, z, (8, 9), 6, margin) - expected).square().mean()) for margin in (0, 1, 2, 4)
    ]
    assert errors == sorted(errors, reverse=True) and errors[2] < errors[0] / 100


def test_the_gradient_of_a_crop_is_that_of_the_same_pixels_of_the_whole(dc: Any) -> None:
    z = torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(8)).requires_grad_()
    whole = latents.crop_pixels(dc, latents.decode(dc, z), (8, 9), 6).square().sum()
    crop = latents.decode_crop(dc, z, (8, 9), 6, margin=8, checkpoint=True).square().sum()
    expected, found = (torch.autograd.grad(loss, z)[0] for loss in (whole, crop))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
