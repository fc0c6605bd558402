"""``--vae``: another autoencoder than the model's, on tiny random models of both families."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLFlux2, AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor

import fluxsr
from fluxsr.backbones import autoencoder, latents
from fluxsr.backbones.identity import contents_of
from fluxsr.backbones.loading import plan_for
from fluxsr.backbones.memory import Needs, plans
from fluxsr.backbones.parts import skeleton
from fluxsr.backbones.places import TAEF2
from fluxsr.backbones.single_file import flux_dev
from fluxsr.backbones.taef2 import AutoencoderTinyFlux2
from fluxsr.errors import ModelError
from fluxsr.imaging.settings import Settings
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing.upscale_file import describe, load, settings_of

WIDTHS = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}


@pytest.fixture(params=["TAEF1", "TAEF2", "small decoder"])
def replaced(
    request: pytest.FixtureRequest, model_folder: Path, klein_folder: Path, klein: Any, tmp_path: Path
) -> tuple[Path, Path, Any]:
    """A model, the folder of an autoencoder that fits it, and this autoencoder."""
    torch.manual_seed(5)
    if request.param == "TAEF1":
        model, vae = model_folder, AutoencoderTiny(latent_channels=4, **WIDTHS)
    elif request.param == "TAEF2":
        model, vae = klein_folder, AutoencoderTinyFlux2(4, (8,) * 4)
    else:
        config = dict(klein.vae.config) | {"decoder_block_out_channels": (16, 16, 24, 24)}
        model, vae = klein_folder, AutoencoderKLFlux2.from_config(config)
        vae.bn.load_state_dict(klein.vae.bn.state_dict())
    vae.save_pretrained(tmp_path / "vae")
    return model, tmp_path / "vae", vae.eval()


@torch.no_grad()
def round_trip(vae: Any, images: Tensor) -> Tensor:
    """Images through an autoencoder alone, as diffusers runs it."""
    encoded = vae.encode(images * 2 - 1)
    z = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return vae.decode(z).sample / 2 + 0.5


def test_an_image_through_another_autoencoder(replaced: tuple[Path, Path, Any], tmp_path: Path) -> None:
    model, folder, vae = replaced
    pipe = load(ModelOptions(model=str(model), vae=str(folder), device="cpu", dtype="fp32"))
    assert type(pipe.vae) is type(vae) and f"with autoencoder {folder}" in describe(pipe)
    up = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(pipe.one_step(up, 0.0), round_trip(vae, up), atol=1e-4, rtol=0)
    low = torch.rand(1, 3, 30, 17, generator=torch.Generator().manual_seed(2))
    settings = Settings(UpscaleOptions(tile_size=64))
    high = pipe.upscale_tensor(low, settings)
    assert high.shape == (1, 3, 120, 68)
    pipe.save_pretrained(tmp_path / "saved")
    for again in (
        fluxsr.FluxSRPipeline.from_pretrained(tmp_path / "saved"),
        fluxsr.load(tmp_path / "saved", device="cpu", dtype="fp32"),
    ):
        again.set_progress_bar_config(disable=True)
        torch.testing.assert_close(again.upscale_tensor(low, settings), high, atol=1e-4, rtol=0)


def test_an_output_is_made_again_with_another_autoencoder(replaced: tuple[Path, Path, Any]) -> None:
    model, folder, _ = replaced
    without, chosen = (ModelOptions(model=str(model), vae=vae, device="cpu") for vae in (None, str(folder)))
    assert settings_of(chosen, UpscaleOptions()) != settings_of(without, UpscaleOptions())
    before = contents_of(str(model), vae=str(folder))
    assert before == contents_of(str(model), vae=str(shutil.copytree(folder, folder.with_name("copy"))))
    (folder / "config.json").write_text("{}")
    assert contents_of(str(model), vae=str(folder)) != before


def test_tiny_latents_are_those_of_the_transformer() -> None:
    """Nothing is scaled; FLUX.2's are packed in the order of diffusers' Flux2KleinPipeline."""
    from diffusers import Flux2KleinPipeline

    image = torch.rand(1, 3, 48, 32)
    one, two = AutoencoderTiny(latent_channels=4, **WIDTHS), AutoencoderTinyFlux2(4, (8,) * 4)
    with torch.no_grad():
        assert torch.equal(latents.encode(one, image), one.encode(image * 2 - 1).latents)
        packed = Flux2KleinPipeline._patchify_latents(two.encode(image * 2 - 1).latents)
        assert torch.equal(latents.encode(two, image), packed)
    assert (latents.pixel_multiple(one), latents.pixel_multiple(two)) == (16, 16)


def test_taef2_of_the_hub_has_no_configuration(fake_hub: Any, klein_folder: Path, tmp_path: Path) -> None:
    real = AutoencoderTinyFlux2()
    assert [sum(p.numel() for p in part.parameters()) for part in (real.encoder, real.decoder)] == [1338528, 1338499]
    save_file(real.state_dict(), tmp_path / TAEF2)
    fake_hub.repositories["madebyollin/taef2"] = {
        TAEF2: (tmp_path / TAEF2).read_bytes(),
        "README.md": b"",
        "more/x": b"",
    }
    again = autoencoder.load_replacement(flux_dev().with_name("klein_4b"), "madebyollin/taef2", torch.float32)
    assert all(torch.equal(weight, real.state_dict()[name]) for name, weight in again.state_dict().items())
    with pytest.raises(ModelError, match="AutoencoderTinyFlux2 with 32 latent channels, which does not fit the Auto"):
        autoencoder.empty_autoencoder(klein_folder, "madebyollin/taef2")


def test_memory_follows_the_decoder() -> None:
    configs = ({}, {"decoder_block_out_channels": (96, 192, 384, 384)})
    vaes = [skeleton({"_class_name": "AutoencoderKLFlux2", **config}, "vae") for config in configs]
    shares = [
        autoencoder.decoder_share(vae) for vae in (*vaes, skeleton({"_class_name": "AutoencoderTinyFlux2"}, "vae"))
    ]
    assert shares == [1, 0.75, 0.5]
    peaks = [next(plans(Needs(10, 10, 1024, 10, decode=share), torch.bfloat16, "cuda")).peak for share in shares]
    assert peaks[0] > peaks[1] > peaks[2]


def test_what_does_not_fit_is_one_line(
    replaced: tuple[Path, Path, Any], model_folder: Path, klein_folder: Path
) -> None:
    model, folder, _ = replaced
    other = klein_folder if model == model_folder else model_folder
    cpu = torch.device("cpu")
    for vae, message in (
        (folder, "latent channels, which does not fit the Auto"),
        (folder.parent, f"no config.json in {folder.parent}; expected the folder of an autoencoder"),
        (folder.parent / "gone", "no autoencoder .*gone; pass a folder"),
    ):
        with pytest.raises(ModelError, match=message):
            plan_for(other, None, cpu, torch.float32, "auto", vae=vae)
