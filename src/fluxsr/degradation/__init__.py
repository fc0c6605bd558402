"""HR -> LR: the second-order degradation of Real-ESRGAN on batches, in torch alone."""

from fluxsr.degradation.second_order import degrade
from fluxsr.degradation.settings import PRESETS, DegradationSettings, StageSettings

__all__ = ["PRESETS", "DegradationSettings", "StageSettings", "degrade"]
