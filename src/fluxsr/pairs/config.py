"""Options of teacher pairs: the dataclass is the default, the YAML schema and the help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fluxsr.imaging.photographs import DataConfig


@dataclass
class PairsConfig:
    """Stage 4: teacher pairs, by inverting photographs or by sampling from noise."""

    data: DataConfig = field(default_factory=DataConfig)  # photographs to invert
    base: str = ""  # the teacher: a folder in diffusers layout (stage 3 exports one), a Hub id, or "bundled"
    mode: Literal["invert", "sample"] = "invert"  # set by the command; a recipe for both leaves it out
    count: int = 0  # pairs to make; 0 makes one of every photograph's crop, or of every prompt of a file
    prompts: str = ""  # text file (a prompt a line), JSON file, or "composer"; empty takes the base's fixed prompt
    text_tokens: int = 512  # length of T5's states; FLUX attends to the padding too
    steps: int = 8  # of the solver; with Heun's rule 8 bring a photograph back best for their cost (docs/benchmarks.md)
    solver: Literal["euler", "midpoint", "heun"] = "heun"  # the last two evaluate the teacher twice a step
    shift: Literal["none", "dynamic"] = "none"  # dynamic: FLUX's shift of times towards noise, by the window's tokens
    guidance: float | None = None  # distilled guidance fed to the teacher; only for bases that embed one
    window: int = 32  # side in latent pixels of what the teacher sees at a time; a sampled image is one window
    crop: int = 512  # side in pixels of the squares photographs are cut into, as many as fit; multiple of 8 windows
    batch: int = 4  # pairs in a call of the teacher; 1 makes a pair's last bit independent of its neighbours
    shard: int = 64  # pairs per shard: what a kill can lose
    check: int = 0  # inverted pairs whose round trip is measured, three times the work; 0 measures all of them
    seed: int = 0  # pair k is drawn from seed + k
    device: str = "auto"
    precision: Literal["bf16", "fp32"] = "bf16"  # of the teacher; the solver's steps are float32 in either
    licence: str = ""  # the teacher's terms, where its folder does not state them or others were agreed
