"""Settings of the second-order degradation, and three presets."""

from __future__ import annotations

from dataclasses import dataclass, field

from fluxsr import recipe
from fluxsr.errors import InputError

Range = tuple[float, float]
_MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class StageSettings:
    """One round of blur, resize, noise, JPEG. Defaults: first round of Real-ESRGAN x4plus."""

    blur_prob: float = 1.0
    """Share of samples that are blurred."""
    blur_sigma: Range = (0.2, 3.0)
    """Standard deviation of blur kernels, pixels."""
    blur_shapes: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    """Weights of iso, aniso, generalized_iso, generalized_aniso, plateau_iso, plateau_aniso."""
    blur_sinc_prob: float = 0.1
    """Share of sinc kernels among blur kernels."""
    generalized_beta: Range = (0.5, 4.0)
    """Exponent of generalised Gaussian kernels; half of the draws are below 1."""
    plateau_beta: Range = (1.0, 2.0)
    """Exponent of plateau kernels."""
    resize_prob: tuple[float, float, float] = (0.2, 0.7, 0.1)
    """Weights of up, down, keep."""
    resize_range: Range = (0.15, 1.5)
    """Lowest and highest factor, of the HR side (first round) or of the LR side (second round)."""
    noise_prob: float = 1.0
    """Share of samples that get noise."""
    gaussian_prob: float = 0.5
    """Share of Gaussian noise among noise; the rest is Poisson."""
    gaussian_sigma: Range = (1.0, 30.0)
    """Standard deviation of Gaussian noise, 8-bit steps."""
    poisson_scale: Range = (0.05, 3.0)
    """Factor on Poisson noise."""
    grey_prob: float = 0.4
    """Share of grey noise among noise."""
    jpeg_prob: float = 1.0
    """Share of samples that are JPEG-compressed."""
    jpeg_quality: Range = (30, 95)
    """Lowest and highest JPEG quality, whole numbers, both included."""


@dataclass(frozen=True)
class DegradationSettings:
    """The whole degradation. Defaults: Real-ESRGAN, options/train_realesrgan_x4plus.yml."""

    scale: int = 4
    """HR side over LR side."""
    first: StageSettings = field(default_factory=StageSettings)
    """First round, at HR size."""
    second: StageSettings = StageSettings(
        blur_prob=0.8,
        blur_sigma=(0.2, 1.5),
        resize_prob=(0.3, 0.4, 0.3),
        resize_range=(0.3, 1.2),
        gaussian_sigma=(1.0, 25.0),
        poisson_scale=(0.05, 2.5),
    )
    """Second round, to LR size; its JPEG is the last one."""
    final_sinc_prob: float = 0.8
    """Share of samples that end with a sinc filter (ringing)."""
    sinc_before_jpeg_prob: float = 0.5
    """Chance, per group, that the sinc filter stands before the last JPEG."""
    resize_modes: tuple[str, ...] = _MODES
    """Interpolations drawn from: area, bilinear, bicubic."""
    antialias: bool = False
    """Widen bilinear and bicubic filters when shrinking (the published code does not)."""
    resize_groups: int = 4
    """Most parts of a batch with resize factors and modes of their own."""

    def __post_init__(self) -> None:
        unknown = [mode for mode in self.resize_modes if mode not in _MODES]
        if unknown or not self.resize_modes:
            raise InputError(f"resize_modes must be some of {_MODES}, got {self.resize_modes}")
        if self.scale < 1 or self.resize_groups < 1:
            raise InputError(f"scale and resize_groups must be 1 or more, got {self.scale}, {self.resize_groups}")


_NOTHING = StageSettings(blur_prob=0.0, resize_prob=(0.0, 0.0, 1.0), noise_prob=0.0, jpeg_prob=0.0)

PRESETS: dict[str, DegradationSettings] = {
    # The published parameters.
    "realesrgan": DegradationSettings(),
    # A camera and one save: light optical blur, antialiased resize, some noise, good JPEG; the
    # second round # rarely blurs or resizes on its own.
    "mild": DegradationSettings(
        first=StageSettings(
            blur_prob=0.95,
            blur_sigma=(0.4, 2.0),
            blur_shapes=(0.6, 0.4, 0.0, 0.0, 0.0, 0.0),
            blur_sinc_prob=0.02,
            resize_prob=(0.1, 0.3, 0.6),
            resize_range=(0.5, 1.2),
            noise_prob=0.3,
            gaussian_sigma=(1.0, 10.0),
            poisson_scale=(0.05, 1.0),
            jpeg_prob=0.2,
            jpeg_quality=(60, 95),
        ),
        second=StageSettings(
            blur_prob=0.2,
            blur_sigma=(0.2, 0.8),
            blur_shapes=(0.6, 0.4, 0.0, 0.0, 0.0, 0.0),
            blur_sinc_prob=0.02,
            resize_prob=(0.1, 0.1, 0.8),
            resize_range=(0.7, 1.2),
            noise_prob=0.5,
            gaussian_sigma=(0.5, 6.0),
            poisson_scale=(0.05, 0.6),
            jpeg_prob=0.7,
            jpeg_quality=(60, 95),
        ),
        final_sinc_prob=0.1,
        antialias=True,
    ),
    # Antialiased bicubic and nothing else: the classical benchmark.
    "bicubic": DegradationSettings(
        first=_NOTHING,
        second=_NOTHING,
        final_sinc_prob=0.0,
        resize_modes=("bicubic",),
        antialias=True,
    ),
}


def load_settings(name: str) -> DegradationSettings:
    """A preset by its name, or the settings of a YAML file.

    Raises:
        InputError: neither, or a file that cannot be read.
    """
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith((".yaml", ".yml")):
        raise InputError(f"degradation '{name}' is not known; choose from {', '.join(PRESETS)}, or name a YAML file")
    return recipe.load(DegradationSettings, name)
