"""Make pairs from prompts: the teacher samples an image from seeded noise, as in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fluxsr.errors import InputError
from fluxsr.keyed import keyed_noise
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.pair_specs import PairSpec
from fluxsr.pairs.prompts import read_prompts
from fluxsr.pairs.store import TeacherPair
from fluxsr.pairs.teacher import Teacher


def sample_specs(config: PairsConfig) -> list[PairSpec]:
    """Return the specs of all pairs to sample. Pair k uses seed + k; prompts repeat if there are more pairs.

    Raises:
        InputError: the number of pairs is missing, or the prompts cannot be read.
    """
    if not config.prompts and config.count < 1:
        raise InputError("count is 0; sampling needs the number of pairs to make")
    prompts = read_prompts(config.prompts, config.count, config.seed) if config.prompts else [""]
    seeds = [config.seed + k for k in range(config.count or len(prompts))]
    return [PairSpec(f"seed-{seed}", k, seed, prompts[k % len(prompts)]) for k, seed in enumerate(seeds)]


def sample_pairs(teacher: Teacher, specs: Sequence[PairSpec]) -> list[TeacherPair]:
    """Sample the pairs of some specs. The teacher starts from the same float16 values that the store keeps."""
    shape = (teacher.channels, teacher.config.window, teacher.config.window)
    eps = torch.stack([keyed_noise(shape, spec.seed) for spec in specs])
    z_0 = teacher.sample(eps, [spec.prompt for spec in specs]).half()
    return [
        TeacherPair(spec.name, clean, noise, spec.prompt, spec.seed)
        for spec, clean, noise in zip(specs, z_0, eps, strict=True)
    ]
