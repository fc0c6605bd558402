"""The teacher of FLUX.2 [klein]: Qwen3's embeddings, classifier-free guidance, and the shift of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fluxsr.backbones import latents
from fluxsr.errors import InputError
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.teacher import load_teacher

CPU = torch.device("cpu")


def config(folder: Path, **options: Any) -> PairsConfig:
    base = {"steps": 3, "window": 2, "solver": "euler", "shift": "dynamic", "guidance": 4.0, "text_tokens": 9}
    return PairsConfig(base=str(folder), prompts="composer", precision="fp32", device="cpu", **(base | options))


def test_the_teacher_samples_as_diffusers_does(klein: Any, klein_folder: Path) -> None:
    texts = ["a cat", "two boats on a lake"]
    teacher = load_teacher(config(klein_folder, window=4), texts, CPU, None)
    eps = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    found = teacher.sample(eps, texts)
    raw = klein(
        prompt=texts,
        height=64,
        width=64,
        num_inference_steps=3,
        guidance_scale=4.0,
        latents=eps,
        max_sequence_length=9,
        output_type="latent",
    ).images
    torch.testing.assert_close(found, latents.normalise(klein.vae, raw), atol=2e-5, rtol=2e-5)
    plain = load_teacher(config(klein_folder, window=4, guidance=None), texts, CPU, None)
    assert (plain.sample(eps, texts) - found).abs().max() > 1e-3, "guidance matters here"


def test_a_fixed_prompt_has_no_empty_one_beside_it(klein_folder: Path) -> None:
    options = config(klein_folder)
    options.prompts = ""
    with pytest.raises(InputError, match=r"guidance is 4\.0, for which .* needs an empty prompt"):
        load_teacher(options, [""], CPU, None)
    options.guidance = None
    teacher = load_teacher(options, [""], CPU, None)
    z_0 = torch.randn(1, 16, 2, 2, generator=torch.Generator().manual_seed(1))
    eps = teacher.invert(z_0, [""])
    assert eps.shape == z_0.shape and teacher.channels == 16
