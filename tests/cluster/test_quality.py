"""Figures without ground truth point at what is wrong."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import interpolate

from fluxsr.cluster.quality import measured
from fluxsr.imaging import io


def figures(lr: torch.Tensor, hr: torch.Tensor, tmp_path: Path) -> dict[str, float]:
    io.write(io.to_pil(hr), tmp_path / "hr.png")
    return measured(lr, tmp_path / "hr.png", 1_000_000)


def test_they_tell_noise_blur_colour_and_a_lattice(tmp_path: Path) -> None:
    noise = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    lr = interpolate(noise, size=(48, 48), mode="bicubic", antialias=True).clamp(0, 1)
    soft = interpolate(lr, size=(192, 192), mode="bicubic", antialias=True).clamp(0, 1)
    plain = figures(lr, soft, tmp_path)
    assert set(plain) == {"fidelity_db", "fine_db", "grid8_db", "grid16_db", "piqe"}
    assert plain["fidelity_db"] > figures(lr, (soft * 0.9).clamp(0, 1), tmp_path)["fidelity_db"] + 5
    assert abs(figures(lr, noise, tmp_path)["fine_db"]) < 1 and plain["fine_db"] < -10
    lattice = soft.clone()
    lattice[..., ::16, ::16] = 1
    assert figures(lr, lattice, tmp_path)["grid16_db"] > plain["grid16_db"] + 10


def test_small_and_flat_results_have_what_can_be_measured(tmp_path: Path) -> None:
    small = torch.full((1, 3, 64, 64), 0.5)
    assert set(figures(small, small, tmp_path)) == {"fidelity_db", "piqe"}
