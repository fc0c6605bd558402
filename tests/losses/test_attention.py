"""Attention Diversification Loss: 1 for equal tokens, finite everywhere, linear over batch and blocks."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fluxsr.losses.attention import adl_loss


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 100])
def test_equal_tokens_have_loss_one_whatever_their_number_and_size(count: int) -> None:
    for size in (1e-3, 1.0, 1e3):
        features = size * tokens(1, 1, 64).expand(1, count, 64)
        assert float(adl_loss([features])) == pytest.approx(1.0, abs=1e-6)


def test_opposite_tokens_have_loss_minus_one_for_the_lesser_part() -> None:
    token = tokens(1, 1, 8)
    features = torch.cat([token.expand(1, 3, 8), -token], dim=1)  # the mean points as the three do
    torch.testing.assert_close(adl_loss([features]), torch.tensor((3 - 1) / 4))


def test_no_tensor_grows_with_the_square_of_the_tokens() -> None:
    class Largest(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.found = max(self.found, out.numel())
            return out

    features = tokens(1, 4096, 4).requires_grad_()
    with Largest() as mode:
        adl_loss([features]).backward()
    assert mode.found <= 2 * features.numel()


def test_is_the_definition() -> None:
    """mean over l of mean over i of cos(F_l_i, mean_j F_l_j), written as the loops it stands for."""
    features = [tokens(2, 6, 8), tokens(2, 4, 3, seed=1)]
    rows = []
    for block in features:
        cosines = [
            float(token @ image.mean(0) / (token.norm() * image.mean(0).norm())) for image in block for token in image
        ]
        rows.append(sum(cosines) / len(cosines))
    assert float(adl_loss(features)) == pytest.approx(sum(rows) / 2, abs=1e-6)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_gradient_is_bounded_where_the_mean_or_a_token_vanishes(size: float) -> None:
    """A step with clipped gradients must not be spent on one such image."""
    half = size * tokens(1, 8, 16)
    dead = torch.cat([half, torch.zeros(1, 1, 16)], dim=1)
    for features in (torch.cat([half, -half], dim=1), dead):
        features = features.detach().requires_grad_()
        loss = adl_loss([features])
        (gradient,) = torch.autograd.grad(loss, features)
        assert -1 <= float(loss.detach()) <= 1 and float(gradient.norm()) * size < 200
    zero = torch.zeros(1, 4, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(adl_loss([zero]), zero)
    assert bool(torch.isfinite(gradient).all())


def test_gradient_makes_tokens_differ() -> None:
    features = (1 + 0.1 * tokens(1, 8, 4)).requires_grad_()
    before = adl_loss([features])
    (gradient,) = torch.autograd.grad(before, features)
    assert float(adl_loss([features.detach() - gradient])) < float(before.detach())


def test_gradient_of_an_image_does_not_depend_on_its_neighbours() -> None:
    pair = torch.cat([tokens(1, 5, 8), tokens(1, 5, 8, seed=1)]).requires_grad_()
    alone = pair.detach()[:1].clone().requires_grad_()
    (together,) = torch.autograd.grad(2 * adl_loss([pair]), pair)
    (single,) = torch.autograd.grad(adl_loss([alone]), alone)
    torch.testing.assert_close(together[:1], single)


def test_bfloat16_is_summed_in_float32() -> None:
    assert adl_loss([tokens(1, 5, 8).bfloat16()]).dtype == torch.float32


def test_no_features_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one block"):
        adl_loss([])


def test_only_the_features_themselves_are_kept_for_the_backward_pass() -> None:
    """Copies in float32 are made again, block by block, and change neither the value nor the gradient."""
    features = [tokens(2, 64, 32, seed=k).bfloat16().requires_grad_() for k in range(3)]
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = adl_loss(features)
    assert sum(kept.values()) <= sum(x.nbytes for x in features)

    def plain(block: torch.Tensor) -> torch.Tensor:
        mean = block.float().mean(1, keepdim=True)
        return torch.cosine_similarity(block.float(), mean, dim=-1).mean()

    expected = torch.stack([plain(block) for block in features]).mean()
    torch.testing.assert_close(loss, expected)
    for a, b in zip(torch.autograd.grad(loss, features), torch.autograd.grad(expected, features), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=1e-7)
