"""Second-order degradation of Real-ESRGAN: HR batches to LR batches, implemented in torch only."""

from fluxsr.degradation.second_order import degrade, degrade_samples
from fluxsr.degradation.settings import PRESETS, DegradationSettings, StageSettings, load_settings

__all__ = ["PRESETS", "DegradationSettings", "StageSettings", "degrade", "degrade_samples", "load_settings"]
