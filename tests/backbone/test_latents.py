from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline

from fluxsr.backbone import latents
from fluxsr.backbone.tiny import build_autoencoder


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
    tokens = latents.pack(z)
    assert torch.equal(tokens, FluxPipeline._pack_latents(z, 2, 4, 8, 6))
    assert torch.equal(latents.unpack(tokens, 8, 6), z)
    assert torch.equal(FluxPipeline._unpack_latents(tokens, 64, 48, 8), z)


def test_image_ids_are_the_flux_pipelines() -> None:
    ids = latents.image_ids(8, 6)
    assert torch.equal(ids, FluxPipeline._prepare_latent_image_ids(2, 4, 3, "cpu", torch.float32))


def test_image_ids_tell_every_row_of_a_large_image_apart() -> None:
    assert len(latents.image_ids(1200, 2)[:, 1].unique()) == 600


@torch.no_grad()
@pytest.mark.parametrize("name", ["vae", "dc"])
def test_pixel_multiple_is_the_side_of_one_token(name: str, request: pytest.FixtureRequest) -> None:
    vae = request.getfixturevalue(name)
    assert latents.pixel_multiple(vae) == 16
    assert latents.pack(latents.encode(vae, torch.rand(1, 3, 16, 16))).shape == (1, 1, 16)
