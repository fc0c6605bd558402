"""Options of every training stage. Each dataclass defines the defaults, the YAML schema and the help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from fluxsr.imaging.photographs import DataConfig
from fluxsr.pairs.config import PairsConfig


@dataclass
class RunConfig:
    """Options of the training loop, the same for every stage."""

    steps: int = 1000  # total number of optimizer steps, which the learning-rate schedule spans
    stop: int = 0  # step at which to stop early, so that another recipe can continue the run; 0 runs to the end
    batch: int = 8  # images per optimizer step, over all processes and micro-batches
    accumulate: int = 1  # micro-batches per process and step (gradient accumulation)
    crop: int = 128  # side of the training crop in HR pixels, a multiple of 16
    # muon: Muon for matrices and convolution kernels, AdamW for the rest
    # adamw8bit: AdamW with 8-bit moments (needs bitsandbytes and a GPU)
    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    lr: float = 3e-4  # peak learning rate of AdamW
    muon_lr: float = 0.02  # peak learning rate of the parameters that Muon trains
    schedule: Literal["cosine", "constant"] = "cosine"  # after the warm-up; cosine decays to lr * lr_floor
    warmup: int = 50  # steps of linear warm-up
    lr_floor: float = 0.02  # final learning rate as a fraction of the peak
    weight_decay: float = 0.0
    clip: float = 1.0  # maximum gradient norm, per parameter group
    explode: float = 100.0  # stop the run when the loss exceeds this multiple of its running median; 0 never stops
    ema: float = 0.0  # decay of the weights' moving average, which is exported; 0 exports the weights themselves
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"  # autocast type of the forward pass
    gradient_checkpointing: bool = False  # recompute the transformer's activations in the backward pass
    decoder_checkpointing: bool = False  # the same for the decoder
    device: str = "auto"
    workers: int = 0  # CPU processes that degrade photographs in stage 5; 0 uses one thread and the training device
    save_every: int = 500  # steps between checkpoints (and validations)
    keep: int = 2  # number of checkpoints to keep, besides the best
    best: str = ""  # validation score of the best checkpoint, such as val/psnr; empty: LPIPS, or else PSNR
    resume: str = "latest"  # checkpoint to resume from: latest in the run's folder, none, or a file
    log_every: int = 20  # steps per line of metrics.jsonl; a line holds the means over these steps
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"  # training curves, in addition to metrics.jsonl


@dataclass
class AutoencoderConfig:
    """Stage 1: the autoencoder, trained on clean photographs."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    widths: list[int] = field(default_factory=lambda: [32, 48, 96, 192])  # channels per level, full size first
    layers: list[int] = field(default_factory=lambda: [0, 2, 2, 2])  # residual blocks per level
    decoder_layers: list[int] = field(default_factory=list)  # residual blocks per decoder level; empty: as layers
    upsample: Literal["pixel_shuffle", "interpolate"] = "pixel_shuffle"  # how the decoder enlarges
    latent_channels: int = 32
    latent_noise: float = 0.05  # fixed standard deviation of the posterior; makes the decoder robust to small errors
    kl_weight: float = 1e-3  # weight of mean(mu^2)/2, the KL of that posterior; keeps latents near unit size
    edge_weight: float = 0.5  # weight of the L1 distance between image gradients


@dataclass
class TeacherConfig:
    """Stage 2: the flow-matching teacher, trained on photographs with one fixed prompt embedding."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    autoencoder: str = ""  # folder in which stage 1 wrote vae/
    num_layers: int = 1  # double-stream blocks
    num_single_layers: int = 3  # single-stream blocks
    num_attention_heads: int = 3
    head_dim: int = 128  # channels of a head; 128 in FLUX
    text_tokens: int = 8
    text_dim: int = 64
    time_law: Literal["uniform", "logit_normal"] = "logit_normal"  # distribution of t; logit_normal is SD3's


@dataclass
class RestorerConfig:
    """Stage 4, for small models: the restorer (backbones/restorer.py); ours."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    base: str = ""  # folder that stage 2 exported; the restorer is added to its autoencoder
    width: int = 64  # channels
    growth: int = 16  # channels that a convolution of a dense block adds
    blocks: int = 23  # residual blocks, of 15 convolutions each
    start: str = ""  # .safetensors file of initial weights; empty starts from the identity
    pairs: ClassVar[str] = ""  # no teacher takes part
    eps_source: ClassVar[str] = "fresh"
    paired: str = ""  # as in stage 5
    paired_share: float = 0.5  # as in stage 5
    degradation: str = "realesrgan"  # as in stage 5
    degradation_group: int = 2  # as in stage 5
    perceptual: str = ""  # as in stage 5
    tv_lpips_weight: float = 0.15  # beside the L1 distance of pixels in [0, 1], which has weight 1
    tv_gamma: float = 0.5
    tv_lpips_scales: list[float] = field(default_factory=lambda: [1.0, 2.0])


@dataclass
class DistillConfig:
    """Stage 5: Flow Trajectory Distillation of the one-step student."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    name: str = "tiny"  # name of the base in the adapter's config
    base: str = ""  # folder that stage 2 or 4 exported, or a Hub id: transformer, vae, fixed prompt
    prompt_folder: str = ""  # folder with the fixed prompt's embeddings; empty uses the base's prompt
    start: str = ""  # folder of a student to start from; its adapter is fused into the base first
    pairs: str = ""  # folder of teacher pairs (stage 3); optional when eps_source is fresh
    paired: str = ""  # folder with LR/ and HR/: pairs of files with the same stem; needs eps_source: fresh, no pairs
    paired_share: float = 0.5  # share of the samples drawn from it, 0 to 1; the rest are degraded photographs
    validation_pairs: list[str] = field(default_factory=list)  # folders with LR/ and HR/, scored at every checkpoint
    validation_lpips: str = ""  # "lpips" (VGG) or a file of LPIPS (squeeze) for the scores; empty: no LPIPS
    perceptual: str = ""  # "lpips" (VGG) or a .safetensors file of LPIPS (squeeze), for TV-LPIPS
    degradation: str = "realesrgan"  # preset of fluxsr.degradation, or a YAML file
    degradation_group: int = 2  # consecutive samples that share resize factors; use 1 if a micro-batch is one sample
    t_l: float = 0.25  # time at which the LR latent enters (open in the paper)
    guidance: float | None = None  # distilled guidance of the student; only for bases that embed one (open)
    tile_size: int = 512  # largest tile of inference, stored in the adapter's config
    strength: float = 1.0  # strength of the step at inference, stored likewise; training always takes the full step
    rank: int = 64  # the paper's rank; 0 trains the whole transformer except its modulation
    train_encoder_lora: bool = False  # also train a LoRA of that rank on the autoencoder's encoder; ours
    train_decoder: bool = False  # also train the decoder, with the losses on pixels; ours
    alpha: float = 64.0  # open in the paper; the LoRA is scaled by alpha / rank
    targets: list[str] = field(default_factory=list)  # name suffixes of adapted linear layers; empty: adapter.TARGETS
    quantize_base: Literal["none", "nf4"] = "none"  # nf4: frozen transformer in 4 bits (needs bitsandbytes and a GPU)
    export: Literal["model", "adapter"] = "model"  # model: base and adapter; adapter: only LoRA, config and prompt
    ftd_weight: float = 1.0
    ftd_times: str = "uniform"  # distribution of t, a key of TIME_LAWS; "uniform+start" adds the FTD loss at t_l
    ftd_every: int = 1  # every n-th sample is an FTD sample; must divide run.batch; the paper uses every sample
    pixel_crop: int = 0  # side in pixels of the random crop decoded for losses on pixels; 0 decodes everything
    mse_weight: float = 1.0  # squared error of pixels in [-1, 1]
    tv_lpips_weight: float = 1.0  # lambda_1, open in the paper
    tv_gamma: float = 1.0  # gamma, open in the paper
    # Scales at which TV-LPIPS compares, one drawn per step; [1] is the paper's. At 2, a network with a stride of 2 sees
    # patterns of a few pixels; at 0.5, its filters cover more of the image. Ours (extensions.losses.at_scale)
    tv_lpips_scales: list[float] = field(default_factory=lambda: [1.0])
    adl_weight: float = 0.01  # lambda_2, open in the paper
    adl_double: list[int] | None = None  # double-stream blocks that ADL uses, from 0; null all, [] none (open)
    adl_single: list[int] | None = None  # single-stream blocks that ADL uses, likewise
    periodic_weight: float = 0.0  # weight of the pixel error that repeats with every token; ours
    eps_source: Literal["pair", "fresh"] = "pair"  # fresh: new Gaussian noise instead of the teacher's (control)


STAGES: dict[str, type] = {
    "autoencoder": AutoencoderConfig,
    "teacher": TeacherConfig,
    "pairs": PairsConfig,
    "restorer": RestorerConfig,
    "distill": DistillConfig,
}

# Options that determine the weights' or the optimizer state's meaning. A resumed run must not change them.
KEPT = {
    "autoencoder", "alpha", "base", "guidance", "latent_channels", "layers",
    "num_attention_heads", "num_layers", "num_single_layers", "prompt_folder", "quantize_base", "rank",
    "run.optimizer", "start", "t_l", "targets", "text_dim", "text_tokens", "train_decoder", "train_encoder_lora",
    "widths",
}  # fmt: skip
# Options that do not affect what the model learns.
FREE = {
    "data.validation", "data.validation_limit", "export", "name",
    "run.accumulate", "run.best", "run.decoder_checkpointing", "run.device", "run.explode",
    "run.gradient_checkpointing", "run.keep", "run.log_every", "run.resume", "run.save_every", "run.stop",
    "run.tracker", "run.workers", "tile_size", "strength", "validation_lpips", "validation_pairs",
}  # fmt: skip
