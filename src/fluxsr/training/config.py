"""Options of every training stage: the dataclass is the default, the YAML schema and the help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fluxsr.imaging.photographs import DataConfig
from fluxsr.pairs.config import PairsConfig


@dataclass
class RunConfig:
    """What the loop needs, the same for every stage."""

    steps: int = 1000  # optimiser steps in all; the learning rate is planned for them
    stop: int = 0  # step to end at before that, for a run that another recipe goes on with; 0 runs to the end
    batch: int = 8  # images per optimiser step, over all processes and micro-batches
    accumulate: int = 1  # micro-batches that a process takes for one step, one after the other
    crop: int = 128  # side of the training crop in HR pixels, a multiple of 16
    # muon: matrices and kernels by Muon, the rest by AdamW; adamw8bit: moments in 8 bits (bitsandbytes, GPU)
    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    lr: float = 3e-4  # peak learning rate of AdamW
    muon_lr: float = 0.02  # peak learning rate of Muon's share
    schedule: Literal["cosine", "constant"] = "cosine"  # after the warm-up; cosine falls to lr * lr_floor
    warmup: int = 50  # steps of linear warm-up
    lr_floor: float = 0.02  # share of the peak that is left at the last step
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm, per parameter group
    explode: float = 100.0  # a loss above so many times its running median stops the run; 0 lets it go on
    ema: float = 0.0  # decay of the weight average that is exported; 0 exports the weights themselves
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"  # autocast type of the forward pass
    gradient_checkpointing: bool = False  # compute the transformer's blocks again going back, instead of keeping them
    decoder_checkpointing: bool = False  # the same for the decoder
    device: str = "auto"
    workers: int = 0  # processes that spoil the photographs of stage 5, for a fast GPU; 0: one thread, on the device
    save_every: int = 500  # steps between checkpoints (and validations)
    keep: int = 2  # checkpoints kept
    resume: str = "latest"  # checkpoint to go on from: latest in the run's folder, none, or a file
    log_every: int = 20  # steps between lines of metrics.jsonl, each the mean over them
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"  # curves beside metrics.jsonl, where installed


@dataclass
class AutoencoderConfig:
    """Stage 1: the autoencoder, on clean photographs only."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    widths: list[int] = field(default_factory=lambda: [32, 48, 96, 192])  # channels per level, full size first
    layers: list[int] = field(default_factory=lambda: [0, 2, 2, 2])  # residual blocks per level
    latent_channels: int = 32
    latent_noise: float = 0.05  # fixed deviation of the posterior: the decoder learns to bear small errors
    kl_weight: float = 1e-3  # weight of mean(mu^2)/2, the KL of such a posterior: latents stay near unit size
    edge_weight: float = 0.5  # weight of the L1 distance between image gradients
    start: str = ""  # folder in which an earlier run wrote vae/, to go on from; empty starts from nothing
    train: Literal["all", "decoder"] = "all"  # decoder: the encoder and so the latents stay as they are
    periodic_weight: float = 0.0  # weight of the part of the error that repeats every PERIOD pixels
    adversarial_weight: float = 0.0  # of a critic on pixels
    adversarial_start: int = 0  # step at which the adversarial term sets in
    critic_widths: list[int] = field(default_factory=lambda: [32, 64, 128])


@dataclass
class PerceptualConfig:
    """Stage 2: a small feature network that learns to recognise degradations."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    widths: list[int] = field(default_factory=lambda: [32, 64, 96, 128])


@dataclass
class TeacherConfig:
    """Stage 3: the flow-matching teacher, on photographs with one fixed prompt embedding."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    autoencoder: str = ""  # folder in which stage 1 wrote vae/
    num_layers: int = 1  # double-stream blocks
    num_single_layers: int = 3  # single-stream blocks
    num_attention_heads: int = 3  # of 128 channels each, as in FLUX
    text_tokens: int = 8
    text_dim: int = 64
    time_law: Literal["uniform", "logit_normal"] = "logit_normal"  # law of t; logit_normal is SD3's


@dataclass
class DistillConfig:
    """Stage 5: Flow Trajectory Distillation of the one-step student."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    name: str = "tiny"  # what the adapter's config calls its base
    base: str = ""  # folder that stage 3 exported, or a Hub id: transformer, vae, fixed prompt
    prompt_folder: str = ""  # folder of the fixed prompt's embeddings; empty: the base's
    start: str = ""  # folder of a student to go on from: its adapter is fused into the base first
    pairs: str = ""  # folder of teacher pairs (stage 4); may stay empty where eps_source is fresh
    perceptual: str = ""  # folder that stage 2 exported, "efficientnet" (losses/efficientnet.py) or "lpips"
    degradation: str = "realesrgan"  # preset of fluxsr.degradation, or a YAML file of your own
    degradation_group: int = 2  # neighbours degraded together, which share sizes; 1 where a micro-batch is one sample
    t_l: float = 0.25  # time at which the LR latent enters (open in the paper)
    guidance: float | None = None  # distilled guidance fed to the student; only for bases that embed one (open)
    tile_size: int = 512  # largest tile at inference, travels in the adapter's config
    strength: float = 1.0  # of inference, travels in the adapter's config; training always takes the whole step
    fine_strength: float = 1.0  # of inference, travels too: see imaging/postprocess.py
    flat_floor: float = 0.0  # likewise
    token_cuts: Literal[1, 2, 4] = 1  # of the one step, travels in the adapter's config: see backbones/cuts.py; ours
    lattice_reach: float = 0.0  # of inference, travels in the adapter's config: see imaging/postprocess.py
    rank: int = 64  # the paper's rank; 0 trains the whole transformer but its modulation
    train_decoder: bool = False  # the decoder learns with the transformer, from the losses on pixels; ours
    alpha: float = 64.0  # open in the paper; equal to the rank means scale 1
    targets: list[str] = field(default_factory=list)  # ends of the names of adapted linears; empty: adapter.TARGETS
    quantize_base: Literal["none", "nf4"] = "none"  # nf4: the frozen transformer in 4 bits (bitsandbytes, GPU)
    export: Literal["model", "adapter"] = "model"  # model: base and adapter; adapter: LoRA, config and prompt alone
    ftd_weight: float = 1.0
    ftd_times: str = "uniform"  # law of t, a name in TIME_LAWS; "uniform+start" adds t_l itself, half and half
    ftd_every: int = 1  # every n-th sample walks the noise path; 1 is the paper's, every sample; divides run.batch
    pixel_crop: int = 0  # side in pixels of the random crop decoded for losses on pixels, whole latents; 0 decodes all
    mse_weight: float = 1.0  # pixels in [-1, 1]
    tv_lpips_weight: float = 1.0  # lambda_1, open in the paper
    tv_gamma: float = 1.0  # gamma, open in the paper
    adl_weight: float = 0.01  # lambda_2, open in the paper
    adl_double: list[int] | None = None  # double-stream blocks that ADL reads, from 0; null all, [] none (open)
    adl_single: list[int] | None = None  # single-stream blocks, likewise
    periodic_weight: float = 0.0  # of what in the pixels' error repeats from token to token (losses/periodic.py); ours
    texture_weight: float = 0.0  # of local amplitudes of fine detail (losses/texture.py); ours
    texture_gains: list[float] = field(default_factory=lambda: [1.0, 1.0])  # of the amplitude, the finest band first
    adversarial_weight: float = 0.0  # of a critic on pixels; off in the paper's recipe
    latent_adversarial_weight: float = 0.0  # of a critic on latents that sees z_l beside; off in the paper's recipe
    adversarial_start: int = 0  # step at which the adversarial terms set in
    critic_widths: list[int] = field(default_factory=lambda: [32, 64, 128])
    critic_network: Literal["", "efficientnet"] = ""  # the critic on pixels looks at its features; empty: at pixels
    latent_critic_widths: list[int] = field(default_factory=lambda: [96, 128, 192])
    eps_source: Literal["pair", "fresh"] = "pair"  # fresh Gaussian noise is the control


STAGES: dict[str, type] = {
    "autoencoder": AutoencoderConfig,
    "perceptual": PerceptualConfig,
    "teacher": TeacherConfig,
    "pairs": PairsConfig,
    "distill": DistillConfig,
}

# Options that the weights or the optimizer's state hang on: a run keeps them from its first step to its last.
KEPT = {
    "autoencoder", "alpha", "base", "critic_network", "critic_widths", "guidance", "latent_channels", "layers",
    "num_attention_heads", "num_layers", "num_single_layers", "prompt_folder", "quantize_base", "rank",
    "run.optimizer", "start", "t_l", "targets", "text_dim", "text_tokens", "train_decoder", "widths",
}  # fmt: skip
# Options that change nothing in what is learnt.
FREE = {
    "data.validation", "data.validation_limit", "export", "name",
    "run.accumulate", "run.decoder_checkpointing", "run.device", "run.explode",
    "run.gradient_checkpointing", "run.keep", "run.log_every", "run.resume", "run.save_every", "run.stop",
    "run.tracker", "run.workers", "tile_size", "lattice_reach", "fine_strength", "flat_floor", "strength",
}  # fmt: skip
