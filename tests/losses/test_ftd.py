"""Flow Trajectory Distillation: its zero, its scale and its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fluxsr import flow
from fluxsr.losses.ftd import ftd_by_time, ftd_loss

T_LS = [0.25, 0.9]


def latents(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z_0, z_l, eps, v_theta: (2,4,6,6) each."""
    generator = torch.Generator().manual_seed(seed)
    z_0, z_l, eps, v = torch.randn(4, 2, 4, 6, 6, generator=generator)
    return z_0, z_l, eps, v


@pytest.mark.parametrize("t_l", T_LS)
def test_zero_at_the_sr_velocity(t_l: float) -> None:
    z_0, z_l, _, v = latents()
    assert float(ftd_loss(z_0, z_l, (z_l - z_0) / t_l, t_l)) < 1e-10
    assert float(ftd_loss(z_0, z_l, v, t_l)) > 1e-3


@pytest.mark.parametrize("t_l", T_LS)
def test_is_the_papers_expression(t_l: float) -> None:
    """|| (u - t_l v_theta) / (1 - t_l) - (eps - z_l) / (1 - t_l) ||^2, whatever eps is."""
    z_0, z_l, eps, v = latents()
    for noise in (eps, 3 * eps + 1):
        v_phi = flow.v_phi_from_v_theta(flow.velocity(z_0, noise), v, t_l)
        expected = (v_phi - flow.lr_velocity(z_l, noise, t_l)).square().mean()
        torch.testing.assert_close(ftd_loss(z_0, z_l, v, t_l), expected, rtol=1e-4, atol=1e-6)


def test_gradient_is_the_closed_form_and_reaches_only_the_network() -> None:
    z_0, z_l, _, v = latents()
    v.requires_grad_()
    ftd_loss(z_0, z_l, v, 0.25).backward()
    residual = (z_l - z_0) - 0.25 * v.detach()
    assert v.grad is not None
    torch.testing.assert_close(v.grad, -2 * 0.25 * residual / 0.75**2 / v.numel())
    assert ftd_loss(z_0.bfloat16(), z_l.bfloat16(), v.bfloat16(), 0.25).dtype == torch.float32


def test_loss_by_time_is_the_loss_of_the_samples_in_each_bin() -> None:
    z_0, z_l, _, v = torch.randn(4, 6, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.2, 0.3, 0.5, 0.99, 1.0, 0.35])  # bins of 0.2 from t_l = 0.2; the one from 0.6 stays empty
    found = ftd_by_time(z_0, z_l, v, t, 0.2)
    members = {"0.20-0.40": [0, 1, 5], "0.40-0.60": [2], "0.60-0.80": [], "0.80-1.00": [3, 4]}
    assert found.keys() == members.keys()
    for name, chosen in members.items():
        each = [ftd_loss(z_0[k : k + 1], z_l[k : k + 1], v[k : k + 1], 0.2) for k in chosen]
        torch.testing.assert_close(found[name], torch.stack(each) if each else torch.empty(0))


def test_loss_by_time_is_for_the_log_only() -> None:
    z_0, z_l, _, v = latents()
    found = ftd_by_time(z_0, z_l, v.requires_grad_(), torch.tensor([0.25, 0.24]), 0.25)  # 0.24: rounded below t_l
    assert {name: len(values) for name, values in found.items() if len(values)} == {"0.25-0.44": 2}
    assert not any(values.requires_grad for values in found.values())
