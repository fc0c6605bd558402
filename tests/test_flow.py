"""The maths of flow.py against its closed forms and against diffusers' own sampler."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fluxsr import flow

T_LS = [0.1, 0.25, 0.5, 0.9]


def draws(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Standard normal latents (2,4,6,8)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 4, 6, 8, generator=generator, dtype=dtype) for _ in range(count)]


def test_interpolate_ends_at_data_and_noise() -> None:
    z_0, eps = draws(2)
    assert torch.equal(flow.interpolate(z_0, eps, 0.0), z_0)
    assert torch.equal(flow.interpolate(z_0, eps, 1.0), eps)


def test_velocity_is_the_derivative_of_the_path() -> None:
    z_0, eps = draws(2)
    t = torch.tensor([0.3, 0.8], dtype=torch.float64, requires_grad=True)
    _, derivative = torch.autograd.functional.jvp(lambda time: flow.interpolate(z_0, eps, time), t, torch.ones_like(t))
    torch.testing.assert_close(derivative, flow.velocity(z_0, eps))


@pytest.mark.parametrize("t_l", T_LS)
def test_lr_path_runs_from_the_lr_latent_to_the_noise(t_l: float) -> None:
    z_l, eps = draws(2)
    torch.testing.assert_close(flow.lr_interpolate(z_l, eps, t_l, t_l), z_l)
    torch.testing.assert_close(flow.lr_interpolate(z_l, eps, 1.0, t_l), eps)


@pytest.mark.parametrize("t_l", T_LS)
def test_lr_velocity_is_the_derivative_of_the_lr_path(t_l: float) -> None:
    z_l, eps = draws(2)
    t = torch.tensor([t_l, (1 + t_l) / 2], dtype=torch.float64)
    _, derivative = torch.autograd.functional.jvp(
        lambda time: flow.lr_interpolate(z_l, eps, time, t_l), t, torch.ones_like(t)
    )
    torch.testing.assert_close(derivative, flow.lr_velocity(z_l, eps, t_l))


def test_a_time_per_sample_is_each_sample_at_its_own_time() -> None:
    z_0, eps = draws(2)
    times = torch.tensor([0.4, 0.9], dtype=torch.float64)
    for path in (flow.interpolate, lambda a, b, t: flow.lr_interpolate(a, b, t, 0.25)):
        alone = [path(z_0[k : k + 1], eps[k : k + 1], float(times[k])) for k in range(2)]
        torch.testing.assert_close(path(z_0, eps, times), torch.cat(alone))


@pytest.mark.parametrize("t_l", T_LS)
def test_displacements_add_up_to_the_teachers(t_l: float) -> None:
    """u = (1 - t_l) v_phi + t_l v_theta, and v_phi is the LR-to-noise velocity at the ideal v_theta."""
    z_0, z_l, eps, v_theta = draws(4)
    u = flow.velocity(z_0, eps)
    v_phi = flow.v_phi_from_v_theta(u, v_theta, t_l)
    torch.testing.assert_close((1 - t_l) * v_phi + t_l * v_theta, u)
    ideal = (z_l - z_0) / t_l
    torch.testing.assert_close(flow.v_phi_from_v_theta(u, ideal, t_l), flow.lr_velocity(z_l, eps, t_l))


@pytest.mark.parametrize("t_l", T_LS)
def test_ftd_residual_is_zero_at_the_ideal_velocity(t_l: float) -> None:
    z_0, z_l = draws(2)
    residual = flow.ftd_residual(z_0, z_l, (z_l - z_0) / t_l, t_l)
    assert residual.dtype == torch.float32
    torch.testing.assert_close(residual, torch.zeros_like(residual), atol=2e-6, rtol=0)


@pytest.mark.parametrize("t_l", T_LS)
def test_both_forms_of_ftd_are_one(t_l: float) -> None:
    """|| v_phi - (eps - z_l) / (1 - t_l) ||^2 is (t_l / (1 - t_l))^2 || v_theta - (z_l - z_0) / t_l ||^2."""
    z_0, z_l, eps, v_theta = draws(4)
    v_phi = flow.v_phi_from_v_theta(flow.velocity(z_0, eps), v_theta, t_l)
    by_phi = (v_phi - flow.lr_velocity(z_l, eps, t_l)).square()
    by_theta = (t_l / (1 - t_l)) ** 2 * (v_theta - (z_l - z_0) / t_l).square()
    torch.testing.assert_close(by_phi, by_theta, rtol=1e-9, atol=1e-12)
    stable = flow.ftd_residual(z_0, z_l, v_theta, t_l).square() / (1 - t_l) ** 2
    torch.testing.assert_close(stable.double(), by_phi, rtol=1e-4, atol=1e-5)


def test_ftd_residual_subtracts_in_float32() -> None:
    """In bfloat16 the difference of two latents near 100 would be lost."""
    z_0 = torch.full((1, 1, 2, 2), 100.0, dtype=torch.bfloat16)
    z_l = torch.full_like(z_0, 100.5)
    v = torch.full_like(z_0, 0.125)
    expected = (z_l.float() - z_0.float()) - 0.25 * 0.125
    assert torch.equal(flow.ftd_residual(z_0, z_l, v, 0.25), expected)


def test_one_step_lands_on_the_clean_latent() -> None:
    z_0, z_l = draws(2)
    torch.testing.assert_close(flow.one_step(z_l, (z_l - z_0) / 0.25, 0.25), z_0)


def test_strength_scales_the_step() -> None:
    z_l, v = draws(2)
    assert torch.equal(flow.one_step(z_l, v, 0.25, strength=0), z_l)
    assert torch.equal(flow.one_step(z_l, v, 0.25, strength=1), flow.one_step(z_l, v, 0.25))
    half = (z_l + flow.one_step(z_l, v, 0.25)) / 2
    torch.testing.assert_close(flow.one_step(z_l, v, 0.25, strength=0.5), half)


@pytest.mark.parametrize("t_l", [0.0, 1.0, -0.2, float("nan")])
def test_entry_time_outside_the_flow_is_refused(t_l: float) -> None:
    z, v = draws(2)
    calls = [
        lambda: flow.one_step(z, v, t_l),
        lambda: flow.lr_interpolate(z, v, 0.5, t_l),
        lambda: flow.lr_velocity(z, v, t_l),
        lambda: flow.v_phi_from_v_theta(z, v, t_l),
        lambda: flow.ftd_residual(z, z, v, t_l),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"t_l is {t_l}"):
            call()


def test_shift_is_that_of_the_flux_pipeline() -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    for tokens in (64, 256, 1024, 4096, 8100):
        assert flow.shift_for_tokens(tokens) == calculate_shift(tokens, 256, 4096, 0.5, 1.15)
    assert flow.shift_for_tokens(256) == pytest.approx(0.5)
    assert flow.shift_for_tokens(4096) == pytest.approx(1.15)


def scheduler(steps: int, mu: float | None) -> object:
    """diffusers' sampler, set as FluxPipeline sets it."""
    import numpy as np
    from diffusers import FlowMatchEulerDiscreteScheduler

    made = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=mu is not None, shift=1.0)
    made.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    return made


@pytest.mark.parametrize("mu", [None, 0.5, 0.8, 1.15])
@pytest.mark.parametrize("steps", [1, 2, 4, 7, 20, 28, 50])
def test_sigmas_are_those_of_diffusers_to_the_bit(steps: int, mu: float | None) -> None:
    sigmas = flow.shifted_sigmas(steps, mu)
    assert sigmas.dtype == torch.float32 and sigmas.shape == (steps + 1,)
    assert torch.equal(sigmas, scheduler(steps, mu).sigmas)
    assert sigmas[0] == 1 and sigmas[-1] == 0 and bool((sigmas.diff() < 0).all())


def test_shift_is_its_closed_form() -> None:
    t = torch.linspace(1, 0, 9, dtype=torch.float64)[:-1]
    expected = math.exp(0.8) / (math.exp(0.8) + 1 / t - 1)
    torch.testing.assert_close(flow.shifted_sigmas(8, 0.8)[:-1].double(), expected, atol=1e-7, rtol=0)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        flow.shifted_sigmas(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_sampling_is_that_of_diffusers_to_the_bit(steps: int, dtype: torch.dtype) -> None:
    """The whole trajectory through a fixed random field, in the number format of the model."""
    matrix = torch.randn(8, 8, generator=torch.Generator().manual_seed(3)).to(dtype) / 4
    theirs = ours = draws(1, dtype=torch.float32)[0].to(dtype)

    def field(z: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(z @ matrix + t.to(dtype))

    sampler = scheduler(steps, 0.8)
    sigmas = flow.shifted_sigmas(steps, 0.8)
    for k, timestep in enumerate(sampler.timesteps):
        theirs = sampler.step(field(theirs, sampler.sigmas[k]), timestep, theirs, return_dict=False)[0]
        ours = flow.euler_step(ours, field(ours, sigmas[k]), sigmas[k], sigmas[k + 1])
        assert ours.dtype == dtype and torch.equal(ours, theirs), f"step {k}"


@pytest.mark.parametrize("width", [3, 5, 6])  # 3: as many samples as columns
def test_every_sample_of_an_euler_step_has_its_own_times(width: int) -> None:
    z, v = torch.randn(2, 3, 4, 5, width, generator=torch.Generator().manual_seed(0))
    t, t_next = torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0.1, 0.4, 0.0])
    together = flow.euler_step(z, v, t, t_next)
    alone = [flow.euler_step(z[k : k + 1], v[k : k + 1], float(t[k]), float(t_next[k])) for k in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(flow.euler_step(z, v, t, 0.0), z - t[:, None, None, None] * v)


def test_one_step_is_the_sampler_with_one_sigma() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    sampler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    sampler.set_timesteps(sigmas=[0.25])
    z_l, v = draws(2, dtype=torch.float32)
    theirs = sampler.step(v, sampler.timesteps[0], z_l, return_dict=False)[0]
    assert torch.equal(flow.one_step(z_l, v, 0.25), theirs)


def error_of_growth(solver: str, steps: int) -> float:
    """Error at t = 1 of dz/dt = z from z(0) = 1, whose solution is e."""
    times = [k / steps for k in range(steps + 1)]
    end = flow.integrate(lambda z, t: z, torch.ones(1, 1, 1, 1), times, solver)  # type: ignore[arg-type]
    return abs(float(end) - math.e)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_order_of_convergence(solver: str, order: int) -> None:
    errors = [error_of_growth(solver, steps) for steps in (8, 16, 32)]
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_straight_flow_is_exact_and_inverts(solver: str) -> None:
    """Along a constant velocity any number of steps arrives, and the way back returns."""
    z_0, eps = draws(2, dtype=torch.float32)
    times = [0.0, 0.1, 0.5, 1.0]
    up = flow.integrate(lambda z, t: eps - z_0, z_0, times, solver)  # type: ignore[arg-type]
    torch.testing.assert_close(up, eps)
    down = flow.integrate(lambda z, t: eps - z_0, up, times[::-1], solver)  # type: ignore[arg-type]
    torch.testing.assert_close(down, z_0)


def test_midpoint_is_exact_where_velocity_is_linear_in_time() -> None:
    """dz/dt = a + b t, so z(1) = z(0) + a + b/2; Euler misses it by b/(2 steps)."""
    z, a, b = draws(3, dtype=torch.float32)
    times = [0.0, 0.3, 1.0]
    field = lambda _z, t: a + b * t  # noqa: E731
    end = flow.integrate(field, z, times, "midpoint")
    torch.testing.assert_close(end, z + a + b / 2)
    torch.testing.assert_close(flow.integrate(field, end, times[::-1], "midpoint"), z)
    assert not torch.allclose(flow.integrate(field, z, times, "euler"), z + a + b / 2, atol=1e-2)


def test_inversion_of_a_linear_field_converges_to_identity() -> None:
    matrix = torch.randn(8, 8, generator=torch.Generator().manual_seed(1)) / 4
    z = draws(1, dtype=torch.float32)[0]
    errors = []
    for steps in (8, 32):
        times = [k / steps for k in range(steps + 1)]
        up = flow.integrate(lambda x, t: x @ matrix, z, times, "midpoint")
        errors.append(float((flow.integrate(lambda x, t: x @ matrix, up, times[::-1], "midpoint") - z).abs().max()))
    assert errors[1] < errors[0] / 12 and errors[1] < 1e-3
