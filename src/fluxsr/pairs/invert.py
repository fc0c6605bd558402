"""Pairs from the teacher's flow: photographs inverted to their own noise, or noise sampled to latents.

Inversion integrates dz/dt = v from t = 0 to 1, so that a real photograph gets the noise from which this very
teacher would paint it. Latents are cut into windows of the size the teacher was trained on.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from fluxsr import flow
from fluxsr.backbone.prompts import FixedPrompt
from fluxsr.backbone.velocity import velocity


@torch.no_grad()
def integrate_windows(
    transformer: Any,
    prompt: FixedPrompt,
    z: Tensor,
    times: list[float],
    window: int,
    solver: Literal["euler", "midpoint"] = "euler",
    guidance: float | None = None,
) -> Tensor:
    """Carry latents (B,C,h,w) along the teacher's flow through the given times, window by window.

    Rising times invert, falling ones sample. ``window`` is a side in latent pixels that divides h and w.
    """
    height, width = z.shape[-2:]
    if height % window or width % window:
        raise ValueError(f"window {window} does not divide the latent of {height}x{width}; choose a divisor")
    windows = rearrange(z, "b c (i h) (j w) -> (b i j) c h w", h=window, w=window)
    done = flow.integrate(lambda z_t, t: velocity(transformer, z_t, t, prompt, guidance), windows, times, solver)
    return rearrange(done, "(b i j) c h w -> b c (i h) (j w)", i=height // window, j=width // window)


def round_trip(
    transformer: Any,
    prompt: FixedPrompt,
    z_0: Tensor,
    times: list[float],
    window: int,
    generator: torch.Generator,
    solver: Literal["euler", "midpoint"] = "euler",
    guidance: float | None = None,
) -> tuple[float, float]:
    """Root mean square error of sampling back from the inverted noise, and from fresh Gaussian noise.

    Args:
        z_0: clean latents (B,C,h,w).
        times: rising from 0 to 1, as used to invert; the way back takes the same times.
        solver, guidance: as used to invert.

    Returns:
        (error from the inverted eps, error from fresh noise), in units of the latent. The first must be the
        smaller by far, else the pairs carry nothing of the teacher.
    """
    eps = integrate_windows(transformer, prompt, z_0, times, window, solver, guidance)
    fresh = torch.randn(z_0.shape, generator=generator).to(z_0.device)
    back = list(reversed(times))

    def error(start: Tensor) -> float:
        end = integrate_windows(transformer, prompt, start, back, window, solver, guidance)
        return float((end.float() - z_0.float()).square().mean().sqrt())

    return error(eps), error(fresh)
