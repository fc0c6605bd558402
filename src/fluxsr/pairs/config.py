"""Options of teacher pairs. The dataclass defines the defaults, the YAML schema and the help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fluxsr.imaging.photographs import DataConfig


@dataclass
class PairsConfig:
    """Stage 3: teacher pairs, made by inverting photographs or by sampling from noise."""

    data: DataConfig = field(default_factory=DataConfig)  # photographs to invert
    base: str = ""  # the teacher: a folder in diffusers layout (stage 2 exports one), a Hub id, or "bundled"
    mode: Literal["invert", "sample"] = "invert"  # set by the command; omit it in a recipe that serves both
    count: int = 0  # number of pairs; 0 makes one for every crop of every photograph, or for every prompt in a file
    prompts: str = ""  # text file (one prompt per line), JSON file, or "composer"; empty uses the base's fixed prompt
    text_tokens: int = 512  # length of the text encoder's states; FLUX also attends to the padding
    steps: int = 8  # solver steps
    solver: Literal["euler", "midpoint", "heun"] = "heun"  # midpoint and heun evaluate the teacher twice per step
    shift: Literal["none", "dynamic"] = "none"  # dynamic: FLUX's time shift for the number of tokens in a window
    guidance: float | None = (
        None  # of the teacher: embedded (FLUX.1-dev), or classifier-free, which needs prompts (FLUX.2 klein)
    )
    window: int = 32  # side in latent pixels of the teacher's input; a sampled image is one window
    crop: int = 512  # side in pixels of the squares cut from photographs; a multiple of the window in pixels
    batch: int = 4  # pairs per call of the teacher; with 1 a pair is bit-identical whatever its neighbours
    shard: int = 64  # pairs per shard; an interrupted run loses at most one unfinished shard
    check: int = 0  # number of inverted pairs whose round trip is measured (triples their cost); 0 measures all
    seed: int = 0  # pair k uses seed + k
    device: str = "auto"
    precision: Literal["bf16", "fp32"] = "bf16"  # precision of the teacher; the solver always works in float32
    licence: str = ""  # licence of the teacher, if its folder does not state one or another was agreed
