"""Sampled pairs: what (prompt, seed) decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fluxsr.backbones.flux1 import pack, unpack
from fluxsr.errors import InputError
from fluxsr.keyed import keyed_noise
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.generate import sample_pairs, sample_specs
from fluxsr.pairs.pair_specs import PairSpec
from fluxsr.pairs.teacher import load_teacher

CPU = torch.device("cpu")


def test_orders_go_round_the_prompts_with_new_noise(options: Callable[..., PairsConfig], tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("a fox\nan owl\n", encoding="utf-8")
    specs = sample_specs(options(prompts=str(tmp_path / "two.txt"), count=3, seed=7))
    assert [(spec.name, spec.index, spec.seed, spec.prompt) for spec in specs] == [
        ("seed-7", 0, 7, "a fox"), ("seed-8", 1, 8, "an owl"), ("seed-9", 2, 9, "a fox"),
    ]  # fmt: skip
    assert len(sample_specs(options(prompts=str(tmp_path / "two.txt"), count=0))) == 2


def test_a_fixed_prompt_needs_a_count(options: Callable[..., PairsConfig]) -> None:
    with pytest.raises(InputError, match="count is 0; sampling needs the number of pairs"):
        sample_specs(options(count=0))


def test_a_pair_is_a_function_of_prompt_and_seed(text_model_folder: Path, options: Callable[..., PairsConfig]) -> None:
    """Alone or among others, first or last: with one pair per call it is the same to the bit."""
    config = options(base=str(text_model_folder), prompts="x.txt", text_tokens=8, guidance=3.5, batch=1, steps=2)
    teacher = load_teacher(config, ["an owl", "a fox"], CPU, None)
    fox, owl, other = PairSpec("f", 0, 5, "a fox"), PairSpec("o", 1, 5, "an owl"), PairSpec("g", 2, 6, "a fox")
    first = sample_pairs(teacher, [owl, other, fox])
    (alone,) = sample_pairs(teacher, [fox])
    assert torch.equal(first[2].z_0, alone.z_0) and torch.equal(first[2].eps, alone.eps)
    assert not torch.equal(first[0].z_0, alone.z_0) and torch.equal(first[0].eps, alone.eps)  # the prompt counts
    assert not torch.equal(first[1].eps, alone.eps)  # the seed counts


def test_the_teacher_starts_from_what_is_stored(options: Callable[..., PairsConfig]) -> None:
    teacher = load_teacher(options(batch=1), [""], CPU, None)
    (pair,) = sample_pairs(teacher, [PairSpec("s", 0, 3)])
    assert torch.equal(pair.eps, keyed_noise((4, 4, 4), 3)) and pair.seed == 3
    assert torch.equal(teacher.sample(pair.eps[None], [""])[0].half(), pair.z_0)


def test_it_is_what_flux_pipeline_paints(text_model_folder: Path, options: Callable[..., PairsConfig]) -> None:
    """Text encoders, shifted times, guidance, packing and solver, against diffusers' own sampler."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    config = options(
        base=str(text_model_folder), prompts="x.txt", text_tokens=8, guidance=3.5, steps=4, shift="dynamic", window=8
    )
    eps = keyed_noise((4, 8, 8), 5)[None].float()
    ours = load_teacher(config, ["a fox"], CPU, None).sample(eps, ["a fox"])
    pipe = FluxPipeline.from_pretrained(text_model_folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
    )
    tokens = pipe(
        "a fox", height=64, width=64, num_inference_steps=4, guidance_scale=3.5, latents=pack(eps),
        max_sequence_length=8, output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(ours, unpack(tokens, 8, 8), atol=1e-5, rtol=1e-5)
