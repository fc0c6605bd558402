"""Critic and generator pull at their own parameters only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fluxsr.extensions.adversarial import LEAD, Critic, FeatureCritic, critic_loss, critic_terms, generator_loss
from fluxsr.extensions.efficientnet import EfficientNetLite


@pytest.fixture()
def critic() -> Critic:
    torch.manual_seed(0)
    return Critic((4, 8))


def images(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class Level(nn.Module):
    """A critic whose score is the mean of the image plus its parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3)) + self.bias


def test_hinge_has_its_closed_form() -> None:
    real, made = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), -0.25)
    assert float(critic_loss(Level(), real, made).detach()) == pytest.approx((1 - 0.5) + (1 - 0.25))
    assert float(critic_loss(Level(), 4 * real, 8 * made).detach()) == 0  # beyond the margins
    assert float(generator_loss(Level(), made).detach()) == pytest.approx(0.25)


def test_both_losses_in_one_backward(critic: Critic) -> None:
    """As in training: the critic gets the gradient of its own loss alone, and the image that of the generator's."""
    made, real = images(seed=2).requires_grad_(), images(seed=1).requires_grad_()
    (critic_loss(critic, real, made) + generator_loss(critic, made)).backward()
    together = [p.grad.clone() for p in critic.parameters() if p.grad is not None]
    torch.manual_seed(0)
    twin = Critic((4, 8))
    assert real.grad is None and made.grad is not None and float(made.grad.abs().max()) > 0
    critic_loss(twin, real, made).backward()
    for a, b in zip(together, (p.grad for p in twin.parameters()), strict=True):
        torch.testing.assert_close(a, b)


def test_a_frozen_critic_stays_frozen(critic: Critic) -> None:
    critic.requires_grad_(False)
    generator_loss(critic, images().requires_grad_())
    assert not any(p.requires_grad for p in critic.parameters())


def test_score_of_an_image_is_the_same_in_any_company(critic: Critic) -> None:
    critic.eval()
    pair = images()
    assert critic(pair).shape == (2, 1, 8, 8)
    torch.testing.assert_close(critic(pair)[:1], critic(pair[:1]))


def test_spectral_norm_bounds_the_slope(critic: Critic) -> None:
    for _ in range(30):  # the power iteration moves at every call
        critic(images())
    weights = [layer.weight.detach().flatten(1) for layer in critic.layers if isinstance(layer, nn.Conv2d)]
    assert all(float(torch.linalg.matrix_norm(w, 2)) == pytest.approx(1, abs=0.05) for w in weights)


def test_terms_set_in_one_after_the_other(critic: Critic) -> None:
    real, made = images(seed=1), images(seed=2)
    assert critic_terms(None, real, made, 1.0, 0) == {}
    assert critic_terms(critic, real, made, 1.0, -LEAD - 1) == {}
    assert set(critic_terms(critic, real, made, 1.0, -1)) == {"critic"}
    both = critic_terms(critic.eval(), real, made, 0.5, 0, "latent_")
    torch.testing.assert_close(both["latent_critic"], critic_loss(critic, real, made))
    torch.testing.assert_close(both["latent_adversarial"], 0.5 * generator_loss(critic, made))


@pytest.fixture()
def feature_critic() -> FeatureCritic:
    torch.manual_seed(0)
    network = EfficientNetLite().requires_grad_(False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return FeatureCritic(network, width=8)


def test_the_heads_learn_and_their_network_does_not(feature_critic: FeatureCritic) -> None:
    real, made = images(seed=1), images(seed=2).requires_grad_()
    assert feature_critic(real).shape == (2, 4, 8, 8), "a map for every level"
    (critic_loss(feature_critic, real, made) + generator_loss(feature_critic, made)).backward()
    assert made.grad is not None and float(made.grad.abs().max()) > 0
    assert all(p.grad is None for p in feature_critic.network.parameters())
    for head in feature_critic.heads:  # the last bias may rest: inside both margins a shift of all scores is not seen
        gradients = [p.grad for name, p in head.named_parameters() if not name.startswith("4.bias")]
        assert all(g is not None and float(g.abs().max()) > 0 for g in gradients)
