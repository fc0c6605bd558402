"""The equations of FluxSR (https://arxiv.org/abs/2502.01993) as pure functions; see docs/method.md.

Time is defined as in FLUX: t = 0 is clean data, t = 1 is noise (some flow-matching libraries use the opposite). Time
always means the sigma of the interpolation, not a step index. Latents are (B,C,h,w). A time is a float or one value per
sample (B,). Only t_l, the time at which the LR latent enters, is always one float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Time = float | Tensor
Solver = Literal["euler", "midpoint", "heun"]


def _per_sample(t: Time, like: Tensor) -> Time:
    """Reshape a time of shape (B,) so that it broadcasts over (B,C,h,w)."""
    return t.to(like.device).reshape(-1, *[1] * (like.ndim - 1)) if isinstance(t, Tensor) and t.ndim else t


def interpolate(z_0: Tensor, eps: Tensor, t: Time) -> Tensor:
    """Return the point of the straight path from data to noise, z_t = (1 - t) z_0 + t eps (rectified flow)."""
    t = _per_sample(t, z_0)
    return (1 - t) * z_0 + t * eps


def velocity(z_0: Tensor, eps: Tensor) -> Tensor:
    """Return the velocity of the straight path, u = dz_t/dt = eps - z_0, which does not depend on t."""
    return eps - z_0


def lr_interpolate(z_l: Tensor, eps: Tensor, t: Time, t_l: float) -> Tensor:
    """Return the point of the LR-to-noise path, z_t = ((1 - t) z_l + (t - t_l) eps) / (1 - t_l), t in [t_l, 1].

    The path starts at z_l for t = t_l and ends at eps for t = 1. (The published figure has a minus before the second
    term, with which the path would not end at eps.)
    """
    _check_t_l(t_l)
    t = _per_sample(t, z_l)
    return ((1 - t) * z_l + (t - t_l) * eps) / (1 - t_l)


def lr_velocity(z_l: Tensor, eps: Tensor, t_l: float) -> Tensor:
    """Return the velocity of the LR-to-noise path, (eps - z_l) / (1 - t_l), the target of v_phi."""
    _check_t_l(t_l)
    return (eps - z_l) / (1 - t_l)


def v_phi_from_v_theta(u: Tensor, v_theta: Tensor, t_l: float) -> Tensor:
    """Return the velocity v_phi of the noise-to-LR flow, computed from v_theta of the SR flow.

    The displacements add up, u = (1 - t_l) v_phi + t_l v_theta, so v_phi = (u - t_l v_theta) / (1 - t_l).

    Args:
        u: the teacher's velocity, eps - z_0 of the pair.
        v_theta: velocity of the SR flow, same shape.
        t_l: time at which the LR latent enters, 0 < t_l < 1.
    """
    _check_t_l(t_l)
    return (u - t_l * v_theta) / (1 - t_l)


def ftd_residual(z_0: Tensor, z_l: Tensor, v_theta: Tensor, t_l: float) -> Tensor:
    """Return (1 - t_l) * (v_phi - target velocity) in a numerically stable form, float32.

    For teacher pairs (u = eps - z_0) eps cancels, r = (z_l - z_0) - t_l v_theta. Subtracting in float32 before
    dividing preserves the small difference of large numbers. r is zero at v_theta = (z_l - z_0) / t_l.
    """
    _check_t_l(t_l)
    return (z_l.float() - z_0.float()) - t_l * v_theta.float()


def one_step(z_l: Tensor, velocity: Tensor, t_l: float, strength: float = 1.0) -> Tensor:
    """Go from the LR latent to the clean latent in one Euler step, z_0 = z_l - strength t_l v.

    Args:
        z_l: LR latent, taken as the state at time t_l.
        velocity: v(z_l, t_l), same shape.
        t_l: time at which the LR latent enters, 0 < t_l < 1.
        strength: 1 is the full step, 0 returns the LR latent.
    """
    _check_t_l(t_l)
    return z_l - strength * t_l * velocity


def shift_for_tokens(tokens: int) -> float:
    """Return FLUX's mu for an image with ``tokens`` tokens: linear from 0.5 at 256 to 1.15 at 4096 tokens.

    Source: the scheduler config of FLUX.1-dev and ``calculate_shift`` in diffusers.
    """
    slope = (1.15 - 0.5) / (4096 - 256)
    return tokens * slope + (0.5 - slope * 256)


def shifted_sigmas(steps: int, mu: float | None = None) -> Tensor:
    """Return the times of the teacher's sampler from 1 down to 0, (steps + 1,), float32.

    The operations have the order of diffusers' FlowMatchEulerDiscreteScheduler, so the results are bit-identical.

    Args:
        steps: number of solver steps, at least 1.
        mu: FLUX's resolution-dependent shift, sigma = e^mu / (e^mu + 1/t - 1); None spaces times evenly.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; the sampler needs at least 1")
    sigmas: np.ndarray = np.linspace(1.0, 1 / steps, steps).astype(np.float32)
    if mu is not None:
        sigmas = math.exp(mu) / (math.exp(mu) + (1 / sigmas - 1))
    return torch.cat([torch.from_numpy(np.asarray(sigmas, dtype=np.float32)), torch.zeros(1)])


def euler_step(z_t: Tensor, velocity: Tensor, t: Time, t_next: Time) -> Tensor:
    """Take one Euler step of dz/dt = v, z + (t_next - t) v, in float32; t_next < t denoises."""
    t, t_next = _per_sample(t, z_t), _per_sample(t_next, z_t)
    return (z_t.float() + (t_next - t) * velocity).to(velocity.dtype)


def integrate(
    field: Callable[[Tensor, float], Tensor],
    z: Tensor,
    times: Sequence[float],
    solver: Solver = "euler",
) -> Tensor:
    """Integrate dz/dt = field(z, t) through the given times.

    Decreasing times sample (noise to data), increasing ones invert (data to noise). ``midpoint`` and ``heun`` are of
    second order and evaluate the field twice per step: at start and midpoint, or at both ends.
    """
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        v = field(z, t)
        if solver == "midpoint":
            half = (t + t_next) / 2
            v = field(euler_step(z, v, t, half), half)
        elif solver == "heun":
            v = (v + field(euler_step(z, v, t, t_next), t_next)) / 2
        z = euler_step(z, v, t, t_next)
    return z


def _check_t_l(t_l: float) -> None:
    if not 0 < t_l < 1:
        raise ValueError(f"t_l is {t_l}; the LR latent enters at a time between 0 and 1, both excluded")
