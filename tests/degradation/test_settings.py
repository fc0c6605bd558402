"""Presets are sound; wrong settings say what to do."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from fluxsr.degradation import PRESETS, DegradationSettings
from fluxsr.errors import InputError


def test_the_presets():
    assert set(PRESETS) == {"realesrgan", "mild", "bicubic"}
    assert PRESETS["realesrgan"] == DegradationSettings()


@pytest.mark.parametrize("name", PRESETS)
def test_ranges_are_ordered_and_probabilities_are_probabilities(name: str):
    for stage in (PRESETS[name].first, PRESETS[name].second):
        for key, value in vars(stage).items():
            if key.endswith("_prob") and isinstance(value, float):
                assert 0 <= value <= 1, key
            elif isinstance(value, tuple) and len(value) == 2:
                assert value[0] <= value[1], key


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        PRESETS["mild"].scale = 2  # type: ignore[misc]


def test_an_unknown_mode_is_named():
    with pytest.raises(InputError, match="lanczos"):
        DegradationSettings(resize_modes=("lanczos",))
