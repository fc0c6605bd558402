"""Which optimizer trains what, and how its learning rate goes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn

from fluxsr.errors import InputError
from fluxsr.training.optimizer import build_optimizer, schedule, trained_parameters


def test_schedule_warms_up_and_falls_to_the_floor(toy: ModuleType) -> None:
    config = toy.config(steps=100, warmup=10, lr_floor=0.1)
    rates = [schedule(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1 == rates[10]
    assert all(a >= b for a, b in zip(rates[9:-1], rates[10:], strict=True))
    assert schedule(55, config) == pytest.approx(0.55)  # half way down between 1 and 0.1
    assert schedule(100, config) == pytest.approx(0.1) == schedule(1000, config)


def test_constant_schedule_stays_at_the_peak(toy: ModuleType) -> None:
    config = toy.config(steps=100, warmup=10, schedule="constant")
    assert schedule(0, config) == pytest.approx(0.1)
    assert {schedule(step, config) for step in range(9, 200)} == {1.0}


def test_muon_takes_matrices(toy: ModuleType) -> None:
    groups = trained_parameters(toy.ToyStage().modules)
    built = build_optimizer(groups, toy.config(optimizer="muon", muon_lr=0.05))
    by_muon = {id(p): group["use_muon"] for group in built.param_groups for p in group["params"]}
    assert len(by_muon) == sum(map(len, groups.values()))
    assert [by_muon[id(p)] for p in groups["net"]] == [True, False, True, False]
    assert {group["use_muon"]: group["lr"] for group in built.param_groups} == {True: 0.05, False: 0.01}


def test_frozen_modules_are_left_out(toy: ModuleType) -> None:
    modules = {"frozen": nn.Linear(2, 2).requires_grad_(False), **toy.ToyStage().modules}
    assert list(trained_parameters(modules)) == ["net", "head"]


def test_muon_orthogonalises_in_float32_on_a_cpu(toy: ModuleType) -> None:
    pytest.importorskip("pytorch_optimizer")
    weight = nn.Parameter(torch.zeros(8, 8))
    built = build_optimizer({"net": [weight]}, toy.config(optimizer="muon", muon_lr=1.0))
    weight.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    built.step()
    assert not torch.equal(weight, weight.bfloat16().float())


@pytest.mark.parametrize("package, optimizer", [("bitsandbytes", "adamw8bit"), ("pytorch_optimizer", "muon")])
def test_a_missing_package_is_named(
    uninstall: Callable[..., None], toy: ModuleType, package: str, optimizer: str
) -> None:
    uninstall(package)
    with pytest.raises(InputError, match=f'run.optimizer: {optimizer} needs {package}; pip install "fluxsr'):
        build_optimizer({"net": [nn.Parameter(torch.zeros(2, 2, device="meta"))]}, toy.config(optimizer=optimizer))


def test_eight_bits_need_a_gpu(toy: ModuleType) -> None:
    with pytest.raises(InputError, match="adamw8bit, which needs a GPU"):
        build_optimizer({"net": [nn.Parameter(torch.zeros(2, 2))]}, toy.config(optimizer="adamw8bit"))
