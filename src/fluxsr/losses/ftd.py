"""Flow Trajectory Distillation (FluxSR, section 3; docs/method.md)."""

from __future__ import annotations

from torch import Tensor

from fluxsr.flow import ftd_residual


def ftd_loss(z_0: Tensor, z_l: Tensor, v_theta: Tensor, t_l: float) -> Tensor:
    """Mean square of v_phi - (eps - z_l) / (1 - t_l), with v_phi from v_theta and the pair's own u = eps - z_0.

    Args:
        z_0: clean latent of the pair (B,C,h,w).
        z_l: LR latent, same shape.
        v_theta: the network at (z_t, t), z_t = lr_interpolate(z_l, eps, t, t_l), t in [t_l, 1].
        t_l: time at which the LR latent enters.

    Returns:
        Scalar, float32; zero exactly at v_theta = (z_l - z_0) / t_l.
    """
    return ftd_residual(z_0, z_l, v_theta, t_l).square().mean() / (1 - t_l) ** 2
