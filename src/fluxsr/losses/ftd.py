"""Flow Trajectory Distillation (FluxSR, section 3; docs/method.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from fluxsr.flow import ftd_residual


def ftd_loss(z_0: Tensor, z_l: Tensor, v_theta: Tensor, t_l: float) -> Tensor:
    """Return the mean square of v_phi - (eps - z_l) / (1 - t_l), with v_phi from v_theta and u = eps - z_0.

    Args:
        z_0: clean latent of the pair (B,C,h,w).
        z_l: LR latent, same shape.
        v_theta: the network at (z_t, t), z_t = lr_interpolate(z_l, eps, t, t_l), t in [t_l, 1].
        t_l: time at which the LR latent enters.

    Returns:
        Scalar, float32; zero exactly at v_theta = (z_l - z_0) / t_l.
    """
    return ftd_residual(z_0, z_l, v_theta, t_l).square().mean() / (1 - t_l) ** 2


@torch.no_grad()
def ftd_by_time(z_0: Tensor, z_l: Tensor, v_theta: Tensor, t: Tensor, t_l: float, bins: int = 4) -> dict[str, Tensor]:
    """Return the loss of each sample in equal bins of t over [t_l, 1], for the log.

    Near t = 1 the input carries no information about the degradation, so some error remains there.

    Args:
        t: times of the samples (B,).

    Returns:
        ``{"0.25-0.44": (n,), ...}`` for t_l = 0.25. Every bin is present, an empty one as an empty tensor, so that
        batches and processes can be averaged over samples.
    """
    each = ftd_residual(z_0, z_l, v_theta, t_l).square().mean(dim=(1, 2, 3)) / (1 - t_l) ** 2
    index = ((t - t_l) / (1 - t_l) * bins).long().clamp(0, bins - 1)
    edges = [t_l + (1 - t_l) * k / bins for k in range(bins + 1)]
    return {f"{edges[k]:.2f}-{edges[k + 1]:.2f}": each[index == k] for k in range(bins)}
