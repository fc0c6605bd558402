"""compose.yaml: its limits go together."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import yaml

from fluxsr.serving.api.limits import Limits

COMPOSE = Path(__file__).parents[3] / "compose.yaml"
UNITS = {"m": 1 << 20, "g": 1 << 30}


def test_uploads_and_kept_results_fit_into_its_tmp() -> None:
    """With as much again for the results that the workers write."""
    service = yaml.safe_load(COMPOSE.read_text())["services"]["cpu"]
    given = dict(option.split("=") for option in service["command"] if "=" in option)
    numbers = {name: int(given[f"--{name.replace('_', '-')}"]) for name in ("queue", "max_bytes", "keep_bytes")}
    limits = replace(Limits(), **numbers)
    size = re.fullmatch(r"/tmp:size=(\d+)([mg]),.*", service["tmpfs"][0])
    assert size is not None
    space = int(size[1]) * UNITS[size[2]]
    assert 2 * (limits.places * limits.max_bytes + limits.keep_bytes) < space
    assert space < int(service["mem_limit"][:-1]) * UNITS[service["mem_limit"][-1]]
