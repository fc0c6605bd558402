"""The method: every term moves the adapter, nothing else moves, and no sample sees another."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.backbones import latents
from fluxsr.backbones.loading import Backbone
from fluxsr.backbones.lora import add_lora
from fluxsr.backbones.prompts import load_prompt, random_prompt
from fluxsr.backbones.tiny import build_autoencoder, build_transformer
from fluxsr.errors import InputError
from fluxsr.training import loop
from fluxsr.training.config import DistillConfig, RunConfig
from fluxsr.training.steps import distill
from fluxsr.training.steps.distill import Batch, DistillStage

CHANNELS, SIDE = 4, 32
TERMS = {"ftd": "ftd_weight", "mse": "mse_weight", "tv_lpips": "tv_lpips_weight", "adl": "adl_weight"}
TERMS |= {"periodic": "periodic_weight"}


@pytest.fixture()
def backbone() -> Backbone:
    """A random base as the recipe builds it, with a fresh adapter: LoRA's B is zero."""
    torch.manual_seed(0)
    transformer = build_transformer(CHANNELS, 1, 1, 1, 8)
    vae = build_autoencoder([8, 8, 8, 16], [0, 1, 1, 1], CHANNELS).requires_grad_(False)
    add_lora(transformer, rank=2, alpha=2.0)
    return Backbone(transformer, vae, random_prompt(3, 8, torch.Generator().manual_seed(0)))


def sample(seed: int) -> Batch:
    """One pair: smooth x_0; z_l, z_0 and eps."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, SIDE // 4, SIDE // 4, generator=generator)
    x_0 = F.interpolate(coarse, scale_factor=4, mode="bilinear")
    z_l, z_0, eps = torch.randn(3, 1, CHANNELS, SIDE // 8, SIDE // 8, generator=generator)
    return x_0, z_l, z_0, eps


def batch(*seeds: int) -> Batch:
    x_0, z_l, z_0, eps = (torch.cat(parts) for parts in zip(*map(sample, seeds), strict=True))
    return x_0, z_l, z_0, eps


def distance(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().mean((1, 2, 3))


def stage(backbone: Backbone, given: Batch | None = None, seed: int = 0, **changes: Any) -> DistillStage:
    given = given or batch(0, 1)
    run = RunConfig(
        precision="fp32", device="cpu", warmup=0, steps=1, lr=1e-3, seed=seed, batch=len(given[0]), tracker="none"
    )
    config = DistillConfig(run=run, **changes)
    return DistillStage(
        config,
        backbone,
        lambda step, samples: tuple(part[list(samples)] for part in given),
        distance,
        torch.device("cpu"),
    )


def terms(stage: DistillStage) -> dict[str, Tensor]:
    found = stage.losses(0, range(stage.config.run.batch))
    return {name: value for name, value in found.items() if not name.startswith("log/")}


def adapter(backbone: Backbone) -> dict[str, nn.Parameter]:
    return {name: p for name, p in backbone.transformer.named_parameters() if p.requires_grad}


def wake(backbone: Backbone) -> None:
    """Give LoRA's B values, as after some training."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in adapter(backbone).items():
        if "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)


def moved(backbone: Backbone, out: Path, **weights: float) -> set[str]:
    """Names of the adapter's parameters that one step of the real loop moves."""
    off = dict.fromkeys(TERMS.values(), 0.0)
    before = {name: p.detach().clone() for name, p in adapter(backbone).items()}
    one = stage(backbone, **{**off, **weights})
    loop.run(one, one.config.run, out)
    return {name for name, p in adapter(backbone).items() if not torch.equal(before[name], p)}


@pytest.mark.parametrize("term", TERMS)
def test_each_term_alone_moves_the_adapter(backbone: Backbone, tmp_path: Path, term: str) -> None:
    names = moved(backbone, tmp_path, **{TERMS[term]: 1.0})
    for block in ("transformer_blocks.0.attn", "single_transformer_blocks.0.attn"):
        assert any(name.startswith(block) and "lora_B" in name for name in names), f"{term} does not reach {block}"


def klein_student(klein: Any, folder: Path, rank: int) -> Backbone:
    """The tiny klein with a fresh adapter."""
    transformer, vae = deepcopy(klein.transformer), deepcopy(klein.vae).requires_grad_(False)
    torch.manual_seed(0)
    add_lora(transformer, rank=rank, alpha=float(rank))
    return Backbone(transformer, vae, load_prompt(folder))


@pytest.mark.slow
def test_ftd_overfits_four_pairs_of_klein(klein: Any, klein_folder: Path, tmp_path: Path) -> None:
    """The velocities to learn have the size that the frozen last layer of the random model can give."""
    z_l, v, eps = torch.randn(3, 4, 16, 2, 2, generator=torch.Generator().manual_seed(0))
    z = z_l, z_l - 0.25 * 0.3 * v, eps
    off = dict.fromkeys(TERMS.values(), 0.0) | {"ftd_weight": 1.0}
    backbone = klein_student(klein, klein_folder, rank=16)
    one = stage(backbone, (batch(*range(4))[0], *z), ftd_times="start", **off)
    before = float(terms(one)["ftd"].detach())
    one.config.run.steps, one.config.run.lr = 50, 3e-2
    loop.run(one, one.config.run, tmp_path)
    assert float(terms(one)["ftd"].detach()) < 0.05 * before


def test_each_term_reaches_an_adapter_of_klein(klein: Any, klein_folder: Path) -> None:
    backbone = klein_student(klein, klein_folder, rank=2)
    wake(backbone)
    x_0 = F.interpolate(batch(0, 1)[0], scale_factor=2)
    z = torch.randn(3, 2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    found = terms(stage(backbone, (x_0, *z), pixel_crop=64, **dict.fromkeys(TERMS.values(), 1.0)))
    layers = adapter(backbone)
    for term in TERMS:
        gradients = torch.autograd.grad(found[term], list(layers.values()), retain_graph=True, allow_unused=True)
        reached = {name for name, x in zip(layers, gradients, strict=True) if x is not None and x.any()}
        missed = {name.split(".lora")[0] for name in layers.keys() - reached}
        # the last block's projection comes after what ADL looks at
        assert missed == ({"single_transformer_blocks.1.attn.to_out"} if term == "adl" else set()), term


def test_without_weights_nothing_moves(backbone: Backbone, tmp_path: Path) -> None:
    assert moved(backbone, tmp_path) == set()


@pytest.mark.parametrize("term", TERMS)
def test_each_term_reaches_all_of_an_awake_adapter(backbone: Backbone, term: str) -> None:
    """Once B is not zero, A gets its gradient too; ADL alone cannot see what comes after the last attention."""
    wake(backbone)
    value = terms(stage(backbone, periodic_weight=1.0))[term]
    parameters = adapter(backbone)
    found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    still = {n for n, g in zip(parameters, found, strict=True) if g is None or float(g.abs().max()) == 0}
    # of the text stream only what later image tokens attend to counts; the last block's own output ends with it
    after = ("proj_out", "single_transformer_blocks.0.proj_mlp") if term == "adl" else ()
    assert all(any(part in name for part in after) for name in still), still


def test_frozen_parts_get_no_gradient(backbone: Backbone) -> None:
    wake(backbone)
    torch.stack(list(terms(stage(backbone)).values())).sum().backward()
    assert all(p.grad is None for p in backbone.vae.parameters())
    frozen = [(n, p) for n, p in backbone.transformer.named_parameters() if "lora" not in n]
    assert frozen and not any(p.requires_grad or p.grad is not None for _, p in frozen)
    assert all("lora" in name for name in adapter(backbone))
    assert all(p.grad is not None for p in adapter(backbone).values())


@pytest.mark.parametrize("term", ["mse", "tv_lpips", "periodic"])
def test_a_decoder_that_learns_hears_every_term_on_pixels(backbone: Backbone, term: str) -> None:
    for name, parameter in backbone.vae.decoder.named_parameters():
        if name.endswith("norm.weight"):  # a fresh residual block adds nothing, and what is inside it learns nothing
            parameter.data.fill_(1.0)
    backbone.vae.decoder.requires_grad_(True)
    one = stage(backbone, train_decoder=True, **dict.fromkeys(TERMS.values(), 0.0) | {TERMS[term]: 1.0})
    terms(one)[term].backward()
    assert one.modules["decoder"] is backbone.vae.decoder
    assert all(p.grad is not None and bool(p.grad.any()) for p in one.modules["decoder"].parameters())
    assert all(p.grad is None for p in backbone.vae.encoder.parameters())


def test_no_loss_of_a_sample_depends_on_its_neighbour(backbone: Backbone) -> None:
    """If losses are sums over samples, exchanging second samples between two batches changes no total."""
    wake(backbone)

    def total(*seeds: int) -> dict[str, Tensor]:
        found = terms(stage(backbone, batch(*seeds), periodic_weight=1.0))
        assert found.keys() == {"ftd", "mse", "tv_lpips", "adl", "periodic"}
        return {name: value.detach() for name, value in found.items()}

    straight, crossed = (total(0, 1), total(2, 3)), (total(0, 3), total(2, 1))
    for name in straight[0]:
        assert float(straight[0][name]) != float(crossed[0][name])
        a, b = (pair[0][name] + pair[1][name] for pair in (straight, crossed))
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


def test_same_seed_same_losses(backbone: Backbone) -> None:
    one = stage(backbone, eps_source="fresh")
    again, other = terms(one), terms(stage(backbone, eps_source="fresh", seed=1))
    for name, value in terms(one).items():
        assert torch.equal(value, again[name]), name
    assert not torch.equal(again["ftd"], other["ftd"])
    assert torch.equal(again["mse"], other["mse"])  # the one step stands at t_l and draws nothing


def test_batches_are_asked_for_by_step_and_sample(backbone: Backbone) -> None:
    asked = []
    one = stage(backbone)
    one.batches = lambda *key: asked.append(key) or batch(0, 1)  # type: ignore[func-returns-value]
    one.losses(17, [4, 5])
    assert asked == [(17, [4, 5])]


@pytest.mark.parametrize("ftd_every", [1, 4])
@pytest.mark.parametrize("options", [{"eps_source": "pair"}, {"eps_source": "fresh", "ftd_times": "uniform+start"}])
def test_losses_of_the_parts_are_those_of_the_whole(
    backbone: Backbone, options: dict[str, Any], ftd_every: int
) -> None:
    """t and fresh eps are drawn by sample: the parts have the mean losses of the batch, also where some of them walk
    no path, and the mean of their gradients."""
    wake(backbone)
    one, parameters = (
        stage(backbone, batch(*range(4)), ftd_every=ftd_every, **options),
        list(adapter(backbone).values()),
    )

    def total(found: dict[str, Tensor]) -> Tensor:
        return torch.stack([value for name, value in found.items() if not name.startswith("log/")]).sum()

    whole, shares = one.losses(5, range(4)), [one.losses(5, [k]) for k in range(4)]
    for name, value in whole.items():
        if name.startswith("log/"):  # the values of single samples, sorted into bins
            torch.testing.assert_close(value, torch.cat([share[name] for share in shares]), rtol=1e-4, atol=1e-6)
        else:
            mean = torch.stack([share[name] for share in shares]).mean()
            torch.testing.assert_close(value, mean, rtol=1e-4, atol=1e-6)
    gradients = torch.autograd.grad(total(whole), parameters)
    means = torch.autograd.grad(torch.stack([total(share) for share in shares]).mean(), parameters)
    for a, b in zip(gradients, means, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_options_that_do_not_fit_are_a_line(backbone: Backbone) -> None:
    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=message):
            stage(backbone, **changes)

    refused("run.batch is 2; it must be a multiple of ftd_every, which is 4", ftd_every=4)
    refused("multiple of ftd_every, which is 0", ftd_every=0)
    refused("pixel_crop is 12; it must be a multiple of a latent's 8 pixels, or 0", pixel_crop=12)
    refused("pixel_crop is -8", pixel_crop=-8)
    refused("pixel_crop is 8; periodic_weight needs 16 pixels .one token. or more", pixel_crop=8, periodic_weight=1.0)
    refused("tv_lpips_scales is .1.5.; give whole numbers, or fractions such as 0.5", tv_lpips_scales=[1.5])
    no_pixels = dict.fromkeys(TERMS.values(), 0.0)
    refused("train_decoder is on, but no loss on pixels has a weight", train_decoder=True, **no_pixels)
    refused("adl_double is \\[1\\], adl_single is None: double-stream block 1 does not exist", adl_double=[1])
    refused("no block is chosen for attention taps", adl_double=[], adl_single=[])
    assert not any(module._forward_hooks for module in backbone.transformer.modules())
    backbone.transformer.register_to_config(guidance_embeds=True)
    refused("embeds a guidance scale; set guidance .FLUX.1-dev: 3.5.")


def test_adl_reads_the_blocks_that_a_recipe_chooses(backbone: Backbone) -> None:
    wake(backbone)
    both, double, single = (
        float(terms(stage(backbone, **blocks))["adl"].detach())
        for blocks in ({}, {"adl_single": []}, {"adl_double": []})
    )
    assert double != single
    assert both == pytest.approx((double + single) / 2)


def test_law_of_t_is_an_entry_of_one_table(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(distill.TIME_LAWS, "end", lambda u: torch.ones_like(u))
    found = stage(backbone, batch(0, 1, 2), ftd_times="end").losses(0, range(3))
    assert [len(value) for name, value in found.items() if "log/ftd" in name] == [0, 0, 0, 3]
    with pytest.raises(InputError, match="ftd_times is 'early'; choose from uniform, uniform\\+start, start, end"):
        stage(backbone, ftd_times="early")


def test_eps_enters_by_the_path_alone_and_not_when_fresh(backbone: Backbone) -> None:
    x_0, z_l, z_0, eps = batch(0, 1)
    for source, differs in (("pair", True), ("fresh", False)):
        a, b = (terms(stage(backbone, (x_0, z_l, z_0, noise), eps_source=source)) for noise in (eps, -eps))
        assert (not torch.equal(a["ftd"], b["ftd"])) == differs
        assert torch.equal(a["mse"], b["mse"]) and torch.equal(a["tv_lpips"], b["tv_lpips"])


def test_an_ideal_student_has_nothing_to_learn(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """v = (z_l - z_0) / t_l: FTD is zero and the image is what the autoencoder makes of x_0."""
    x_0, z_l, z_0, _ = given = batch(0, 1)
    real = distill.velocity

    def ideal(*arguments: Any) -> Tensor:
        real(*arguments)  # fills the attention taps
        return ((z_l - z_0) / 0.25).repeat(2, 1, 1, 1)

    monkeypatch.setattr(distill, "velocity", ideal)
    found = terms(stage(backbone, given))
    assert float(found["ftd"]) < 1e-9
    expected = F.mse_loss(latents.decode(backbone.vae, z_0) * 2, x_0 * 2)
    torch.testing.assert_close(found["mse"], expected, rtol=1e-4, atol=1e-6)


def test_the_step_stands_at_the_lr_latent_and_the_path_above_it(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call: (z_t, t) of the path with t in [t_l, 1], then (z_l, t_l), where inference stands."""
    calls, real = [], distill.velocity

    def watched(transformer: Any, z: Tensor, times: Tensor, *rest: Any) -> Tensor:
        calls.append((z, times))
        return real(transformer, z, times, *rest)

    monkeypatch.setattr(distill, "velocity", watched)
    _, z_l, _, eps = given = batch(*range(8))
    terms(stage(backbone, given, t_l=0.4))
    ((z, times),) = calls
    torch.testing.assert_close(z[8:], z_l)
    assert bool((times[8:] == 0.4).all())
    t = times[:8].view(-1, 1, 1, 1)
    assert float(t.min()) >= 0.4 - 1e-6 and float(t.max()) <= 1 and len(t.unique()) == 8
    torch.testing.assert_close(z[:8], ((1 - t) * z_l + (t - 0.4) * eps) / 0.6)


def test_weights_scale_their_terms(backbone: Backbone) -> None:
    weights = dict.fromkeys(TERMS.values(), 1.0)
    one = terms(stage(backbone, **weights))
    for name in one:
        doubled = terms(stage(backbone, **{**weights, TERMS[name]: 2.0}))
        torch.testing.assert_close(doubled[name], 2 * one[name])


def test_a_part_of_the_batch_may_walk_the_path(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ftd_every 4 of 8: FTD is that of samples 0 and 4 alone, and every sample still takes the one step."""
    calls, real = [], distill.velocity

    def watched(transformer: Any, z: Tensor, *rest: Any) -> Tensor:
        calls.append(len(z))
        return real(transformer, z, *rest)

    monkeypatch.setattr(distill, "velocity", watched)
    some = terms(stage(backbone, batch(*range(8)), ftd_every=4))
    assert calls == [10]
    one = stage(backbone, batch(*range(8)))
    whole = one.losses(0, [0, 4])
    torch.testing.assert_close(some["ftd"], whole["ftd"])
    torch.testing.assert_close(some["mse"], terms(stage(backbone, batch(*range(8))))["mse"])


def test_the_crop_that_is_decoded_lies_on_its_pixels(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ideal decoder that enlarges a latent of the photograph's own pixels has no error, wherever the crop lies."""
    x_0, z_l, _, eps = batch(0, 1)
    x_0 = F.interpolate(F.avg_pool2d(x_0, 8), scale_factor=8, mode="nearest")
    sizes = []

    def enlarge(_vae: Any, z: Tensor, _checkpoint: bool) -> Tensor:
        sizes.append(z.shape[-1])
        return F.interpolate(z[:, :3], scale_factor=8, mode="nearest")

    z_0 = F.pad(F.avg_pool2d(x_0, 8), (0, 0, 0, 0, 0, CHANNELS - 3))
    monkeypatch.setattr(latents, "decode", enlarge)
    monkeypatch.setattr(distill.flow, "one_step", lambda *_: z_0)
    given = (x_0, z_l, z_0, eps)
    assert all(float(terms(stage(backbone, given, seed, pixel_crop=8))["mse"]) < 1e-9 for seed in range(8))
    assert set(sizes) == {3, 4}  # one latent and the margin around it, where the image has any


def test_gradient_checkpointing_changes_no_gradient(backbone: Backbone) -> None:
    """ADL's taps hang on blocks that are computed again; they fire once."""
    wake(backbone)
    parameters, found = list(adapter(backbone).values()), []
    for turn_on in (False, True):
        if turn_on:
            backbone.transformer.enable_gradient_checkpointing()
        values = terms(stage(backbone))
        total = torch.stack(list(values.values())).sum()
        found.append((values["adl"].detach(), torch.autograd.grad(total, parameters)))
    backbone.transformer.disable_gradient_checkpointing()
    assert torch.equal(found[0][0], found[1][0])
    for plain, again in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(plain, again)


def test_nothing_is_decoded_where_no_pixel_counts(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "decode", lambda *_: pytest.fail("decoded"))
    assert terms(stage(backbone, mse_weight=0.0, tv_lpips_weight=0.0)).keys() == {"ftd", "adl"}


def test_losses_fall(backbone: Backbone, tmp_path: Path) -> None:
    """On one batch, in a few steps, from the sum of all terms: what is minimised goes down."""
    one = stage(backbone, adl_weight=0.0, ftd_weight=1.0)
    before = {name: float(value.detach()) for name, value in terms(one).items()}
    one.config.run.steps, one.config.run.lr = 15, 3e-3
    loop.run(one, one.config.run, tmp_path)
    after = {name: float(value.detach()) for name, value in terms(one).items()}
    assert sum(after.values()) < 0.95 * sum(before.values())


def test_a_path_that_stays_at_its_start_is_the_one_step(backbone: Backbone) -> None:
    """With the law 'start' FTD is the squared error of the one step's latent, whatever the noise."""
    x_0, z_l, z_0, eps = batch(0, 1)
    a, b = (terms(stage(backbone, (x_0, z_l, z_0, noise), ftd_times="start"))["ftd"] for noise in (eps, -eps))
    torch.testing.assert_close(a, b)
