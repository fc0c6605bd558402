"""Settings of the second-order degradation: named presets, or a YAML file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from fluxsr import recipe
from fluxsr.errors import InputError

Range = tuple[float, float]
_MODES = ("area", "bilinear", "bicubic")
_LIMITS = {  # smallest and largest valid value of each range
    "blur_sigma": (0.01, math.inf),
    "generalized_beta": (0.01, math.inf),
    "plateau_beta": (0.01, math.inf),
    "resize_range": (0.01, math.inf),
    "gaussian_sigma": (0.0, math.inf),
    "poisson_scale": (0.0, math.inf),
    "jpeg_quality": (1, 100),
}


@dataclass(frozen=True)
class StageSettings:
    """One round of blur, resize, noise and JPEG. The defaults are the first round of Real-ESRGAN x4plus."""

    blur_prob: float = 1.0
    """Fraction of samples that are blurred."""
    blur_sigma: Range = (0.2, 3.0)
    """Standard deviation of blur kernels, pixels."""
    blur_shapes: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    """Weights of iso, aniso, generalized_iso, generalized_aniso, plateau_iso, plateau_aniso."""
    blur_sinc_prob: float = 0.1
    """Fraction of blur kernels that are sinc kernels."""
    generalized_beta: Range = (0.5, 4.0)
    """Exponent of generalised Gaussian kernels; half of the draws are below 1."""
    plateau_beta: Range = (1.0, 2.0)
    """Exponent of plateau kernels."""
    resize_prob: tuple[float, float, float] = (0.2, 0.7, 0.1)
    """Weights of up, down, keep."""
    resize_range: Range = (0.15, 1.5)
    """Lowest and highest factor, of the HR side (first round) or of the LR side (second round)."""
    noise_prob: float = 1.0
    """Fraction of samples that get noise."""
    gaussian_prob: float = 0.5
    """Fraction of noise that is Gaussian; the rest is Poisson."""
    gaussian_sigma: Range = (1.0, 30.0)
    """Standard deviation of Gaussian noise, 8-bit steps."""
    poisson_scale: Range = (0.05, 3.0)
    """Factor on Poisson noise."""
    grey_prob: float = 0.4
    """Fraction of noise that is grey."""
    jpeg_prob: float = 1.0
    """Fraction of samples that are JPEG-compressed."""
    jpeg_quality: Range = (30, 95)
    """Lowest and highest JPEG quality, whole numbers, both included."""

    def __post_init__(self) -> None:
        for name, (least, greatest) in _LIMITS.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= greatest:
                raise InputError(f"{name} is [{low}, {high}]; give a lower and an upper end in {least:g}..{greatest:g}")
        if not self.resize_range[0] <= 1 <= self.resize_range[1]:
            raise InputError(f"resize_range is {list(self.resize_range)}; it must contain 1")
        for name in ("blur_prob", "blur_sinc_prob", "noise_prob", "gaussian_prob", "grey_prob", "jpeg_prob"):
            _check_share(name, getattr(self, name))
        _check_weights("blur_shapes", self.blur_shapes, 6)
        _check_weights("resize_prob", self.resize_prob, 3)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value:g}; it must be in 0..1")


def _check_weights(name: str, weights: Sequence[float], count: int) -> None:
    if len(weights) != count or min(weights) < 0 or sum(weights) <= 0:
        raise InputError(f"{name} is {list(weights)}; give {count} weights, none below 0 and not all 0")


@dataclass(frozen=True)
class DegradationSettings:
    """Settings of both rounds. The defaults are Real-ESRGAN's, options/train_realesrgan_x4plus.yml."""

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
    """Second round, at LR size; its JPEG is the last one."""
    final_sinc_prob: float = 0.8
    """Fraction of samples that get a final sinc filter (ringing)."""
    sinc_before_jpeg_prob: float = 0.5
    """Probability, per group, that the sinc filter precedes the last JPEG."""
    resize_modes: tuple[str, ...] = _MODES
    """Interpolation modes to draw from: area, bilinear, bicubic."""
    antialias: bool = False
    """Whether bilinear and bicubic filters widen when shrinking (not in the published code)."""
    resize_groups: int = 4
    """Maximum number of groups of a batch with separate resize factors and modes (``degrade`` only)."""

    def __post_init__(self) -> None:
        unknown = [mode for mode in self.resize_modes if mode not in _MODES]
        if unknown or not self.resize_modes:
            raise InputError(f"resize_modes is {list(self.resize_modes)}; choose from {', '.join(_MODES)}")
        if self.scale < 1 or self.resize_groups < 1:
            raise InputError(f"scale and resize_groups must be 1 or more, got {self.scale}, {self.resize_groups}")
        _check_share("final_sinc_prob", self.final_sinc_prob)
        _check_share("sinc_before_jpeg_prob", self.sinc_before_jpeg_prob)


_NOTHING = StageSettings(blur_prob=0.0, resize_prob=(0.0, 0.0, 1.0), noise_prob=0.0, jpeg_prob=0.0)

PRESETS: dict[str, DegradationSettings] = {
    # The published parameters: xinntao/Real-ESRGAN, options/train_realesrgan_x4plus.yml.
    "realesrgan": DegradationSettings(),
    # The published parameters: IceClear/StableSR, configs/stableSRNew/v2-finetune_text_T_512.yaml, read at commit
    # 1205adcc0d4a5873104c13060f16d7167d02f345. Two of its keys have no counterpart here. Its dataset never uses
    # blur_kernel_size2 (11). no_degradation_prob (0.01) replaces the enlarged LR image by the HR image, which needs
    # no LR image.
    "stablesr": DegradationSettings(
        first=StageSettings(
            blur_sigma=(0.2, 1.5),
            generalized_beta=(0.5, 2.0),
            plateau_beta=(1.0, 1.5),
            resize_range=(0.3, 1.5),
            gaussian_sigma=(1.0, 15.0),
            poisson_scale=(0.05, 2.0),
            jpeg_quality=(60, 95),
        ),
        second=StageSettings(
            blur_prob=0.5,
            blur_sigma=(0.2, 1.0),
            generalized_beta=(0.5, 2.0),
            plateau_beta=(1.0, 1.5),
            resize_prob=(0.3, 0.4, 0.3),
            resize_range=(0.6, 1.2),
            gaussian_sigma=(1.0, 12.0),
            poisson_scale=(0.05, 1.0),
            jpeg_quality=(60, 100),
        ),
    ),
    # A camera and one save: light optical blur, antialiased resize, some noise and good JPEG. The second round rarely
    # blurs or resizes.
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
    # Only antialiased bicubic resize, as in the classical benchmark.
    "bicubic": DegradationSettings(
        first=_NOTHING,
        second=_NOTHING,
        final_sinc_prob=0.0,
        resize_modes=("bicubic",),
        antialias=True,
    ),
}


@dataclass(frozen=True)
class _SettingsFile(DegradationSettings):
    preset: str = "realesrgan"
    """Preset that gives the value of every key that the file omits."""


def load_settings(name_or_path: str | Path) -> DegradationSettings:
    """Return a preset by name, or read settings from a YAML file.

    A file has the keys of `DegradationSettings`; `first:` and `second:` are groups with the keys of `StageSettings`.
    Keys that it omits come from the preset that it names (`preset: mild`), or from realesrgan.

    Raises:
        InputError: the name is neither a preset nor a file, a key is unknown, or a value is invalid.
    """
    if str(name_or_path) in PRESETS:
        return PRESETS[str(name_or_path)]
    path = Path(name_or_path)
    if not path.is_file():
        raise InputError(f"degradation '{name_or_path}' is not known; choose from {_names()}, or name a YAML file")
    preset = str(recipe.read(path).get("preset", _SettingsFile.preset))
    if preset not in PRESETS:
        raise InputError(f"{path}: preset '{preset}' is not known; choose from {_names()}")
    read = recipe.load(_SettingsFile, path, base=asdict(PRESETS[preset]))
    return DegradationSettings(**{field.name: getattr(read, field.name) for field in fields(DegradationSettings)})


def _names() -> str:
    return ", ".join(PRESETS)
