"""Photographs and crops: keyed by seed, step and sample; pixels and noise stay together."""

from __future__ import annotations

import importlib
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fluxsr.errors import InputError
from fluxsr.keyed import keyed_generator
from fluxsr.training import dataset
from fluxsr.training.ahead import Ahead, AheadInProcesses
from fluxsr.training.dataset import PairCrops, PhotoCrops
from fluxsr.training.targets import Targets, map_targets, write_targets


def latents_of(photo: Tensor) -> Tensor:
    """z_0 and eps (2,3,H//16*2,W//16*2) that say where they stand: row, column and number in pixels, eps negated."""
    height, width = (side // 16 * 2 for side in photo.shape[1:])
    code = photo[:, : height * 8 : 8, : width * 8 : 8].float()
    return torch.stack([code, -code])


def shrink(images: Tensor, _generators: Sequence[torch.Generator]) -> Tensor:
    return F.avg_pool2d(images, 4)


def pair_crops(photos: list[Tensor], seed: int = 0, crop: int = 32) -> PairCrops:
    return PairCrops(Targets(photos, [latents_of(photo) for photo in photos]), crop, seed, 8, shrink)


def test_a_purpose_is_a_key_of_its_own() -> None:
    """SeedSequence pads with zeros, so a purpose must not be 0: the crop is drawn without one."""
    purposes = (dataset.TIME, dataset.NOISE, dataset.CROP, dataset.SLOT, dataset.ORDER, dataset.DEGRADE)
    draws = [keyed_generator(1, 2, 3, *purpose).initial_seed() for purpose in ((), *((p,) for p in purposes))]
    assert len(set(draws)) == len(draws)
    assert keyed_generator(1, 2, 3, 0).initial_seed() == draws[0]


def test_a_sample_draws_the_same_in_any_company() -> None:
    def noise(*samples: int) -> Tensor:
        return dataset.normals((2, 3), dataset.sample_generators(1, 5, samples, dataset.NOISE))

    assert noise(0, 1, 2).shape == (3, 2, 3)
    assert torch.equal(noise(0, 1, 2)[1:], noise(1, 2)) and torch.equal(noise(2, 0)[0], noise(2)[0])


def test_same_key_same_crops(photos: list[Tensor]) -> None:
    crops, again, six = PhotoCrops(photos, 32, seed=1), PhotoCrops(photos, 32, seed=1), range(6)
    assert torch.equal(crops(5, six), again(5, six)) and torch.equal(crops(5, six), crops(5, six))
    assert not torch.equal(crops(5, six), crops(6, six))
    assert not torch.equal(crops(5, six), PhotoCrops(photos, 32, seed=2)(5, six))
    assert torch.equal(crops(5, six)[2:4], crops(5, [2, 3]))  # a sample has a key of its own


def test_crops_are_pieces_of_the_photographs_turned_and_mirrored(photos: list[Tensor]) -> None:
    crops = torch.cat([PhotoCrops(photos, 32, seed=0)(step, range(16)) for step in range(8)])
    assert crops.shape == (128, 3, 32, 32) and crops.dtype == torch.float32
    codes, turns = (crops * 255).round().long(), set()
    for crop in codes:
        index, rows, columns = int(crop[2, 0, 0]), crop[0], crop[1]
        photo = photos[index]
        assert bool((crop[2] == index).all())
        assert torch.equal(photo[:2, rows, columns].long(), crop[:2])
        assert len(rows.unique()) == len(columns.unique()) == 32
        turns.add(tuple(int(code.diff(dim=d)[0, 0]) for code in (rows, columns) for d in (0, 1)))
    assert len(turns) == 8  # all turns and mirror images occur
    assert {int(crop[2, 0, 0]) for crop in codes} == {0, 1, 2}


def test_photographs_below_the_crop_are_left_out(photos: list[Tensor]) -> None:
    crops = PhotoCrops(photos, 100, seed=0)(0, range(12))  # only the third is as large: 160x100
    assert set((crops[:, 2] * 255).round().unique().tolist()) == {2}
    with pytest.raises(InputError, match="as large as the crop of 256"):
        PhotoCrops(photos, 256, 0)


def test_pairs_keep_pixels_and_latents_together(photos: list[Tensor]) -> None:
    """Every 8x8 cell of x_0 opens with the code that its z_0 and eps carry."""
    seen = set()
    for step in range(12):
        x_0, lr_up, z_0, eps = pair_crops(photos)(step, range(8))
        assert x_0.shape == lr_up.shape == (8, 3, 32, 32) and z_0.shape == eps.shape == (8, 3, 4, 4)
        torch.testing.assert_close(x_0[:, :, ::8, ::8] * 255, z_0)
        assert torch.equal(eps, -z_0)
        seen |= {(int(z[2, 0, 0]), int(z[0, 0, 0]), int(z[1, 0, 0])) for z in z_0}
    assert all(row % 16 == 0 and column % 16 == 0 for _, row, column in seen)  # a token is never cut
    assert {index for index, _, _ in seen} == {0, 1, 2}
    assert {row for index, row, _ in seen if index == 0} == {16, 32, 48}  # 96 rows, crop 32, margin 16: all of them


@pytest.mark.parametrize("pixels", [4, 16])
def test_latents_of_other_sizes_stay_with_their_pixels(photos: list[Tensor], pixels: int) -> None:
    codes = [photo[:, ::pixels, ::pixels].float() for photo in photos]
    latents = [torch.stack([code, -code]) for code in codes]
    x_0, _, z_0, _ = PairCrops(Targets(photos, latents), 32, 0, 8, shrink, pixels=pixels)(0, range(8))
    assert z_0.shape == (8, 3, 32 // pixels, 32 // pixels)
    torch.testing.assert_close(x_0[:, :, ::pixels, ::pixels] * 255, z_0)


def test_the_enlarged_partner_lies_on_its_photograph(photos: list[Tensor]) -> None:
    """Down by averages and up by bicubic keeps a ramp to a quarter of its step, unless something is shifted."""
    x_0, lr_up, _, _ = pair_crops(photos)(0, range(8))
    torch.testing.assert_close(lr_up * 255, x_0 * 255, atol=0.25, rtol=0)


def test_pair_crops_are_keyed(photos: list[Tensor]) -> None:
    def drawn(seed: int, step: int, noisy: bool = True) -> tuple[Tensor, ...]:
        crops = pair_crops(photos, seed)
        if noisy:
            crops.degradation = lambda hr, g: shrink(hr, g) + 0.1 * torch.rand(2, 3, 16, 16, generator=g[0])
        return crops(step, range(8))

    for a, b in zip(drawn(1, 4), drawn(1, 4), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(drawn(1, 4)[0], drawn(2, 4)[0])
    assert not torch.equal(drawn(1, 4)[0], drawn(1, 5)[0])
    assert torch.equal(drawn(1, 4)[0], drawn(1, 4, noisy=False)[0])  # where it is cut does not hang on the degradation


def test_a_share_of_the_samples_is_drawn_as_the_whole(photos: list[Tensor]) -> None:
    """Groups of the degradation are fixed: a process that takes half of one degrades all of it."""
    crops, keys = pair_crops(photos), []

    def noisy(hr: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        (generator,) = generators
        keys.append(generator.initial_seed())
        return shrink(hr, generators) + 0.1 * torch.rand(len(hr), 3, 16, 16, generator=generator)

    crops.degradation = noisy
    whole = crops(3, range(6))
    assert len(set(keys)) == 3
    for samples in ([0], [1], [2, 3], [3, 4], [5, 0]):
        for part, all_of_them in zip(crops(3, samples), whole, strict=True):
            assert torch.equal(part, all_of_them[samples])
    assert len(set(keys)) == 3  # always the same three groups


@pytest.mark.parametrize("alone", [True, False])
def test_every_target_is_used_once_an_epoch(alone: bool) -> None:
    """Five photographs of one grey each, batches of two: epochs end within a step."""
    photos = [torch.full((3, 96, 96), index, dtype=torch.uint8) for index in range(5)]
    held = [] if alone else [torch.full((2, 4, 12, 12), float(index)) for index in range(5)]
    crops = PairCrops(Targets(photos, held), 32, 3, 2, shrink)
    drawn = (torch.cat([crops(step, range(2))[0] for step in range(25)])[:, 0, 0, 0] * 255).round().int().tolist()
    epochs = [drawn[k : k + 5] for k in range(0, 48, 2) if k % 10 == 0]
    counted = [drawn.count(index) for index in range(5)]
    assert counted == [10] * 5 and crops.targets_seen(25) == {"targets_seen": 10.0}
    # Within a step, samples take their places in a random order; an epoch of five ends within every fifth step.
    assert all(len(set(drawn[k : k + 4])) == 4 for k in range(0, 50, 10)) and len({tuple(e) for e in epochs}) > 1


def test_photographs_alone_are_turned_and_teacher_pairs_are_not(photos: list[Tensor]) -> None:
    def orientations(crops: PairCrops) -> set[tuple[int, ...]]:
        wide = torch.cat([(crops(step, range(8))[0] * 255).round().int() for step in range(8)])
        return {tuple(int(x[axis, r, c] - x[axis, 0, 0]) for axis in (0, 1) for r, c in ((1, 0), (0, 1))) for x in wide}

    assert len(orientations(PairCrops(Targets(photos), 32, 0, 8, shrink))) == 8
    assert len(orientations(pair_crops(photos))) == 1


def test_a_group_of_one_throws_nothing_away(photos: list[Tensor]) -> None:
    shapes = []
    targets = Targets(photos, [latents_of(photo) for photo in photos])
    crops = PairCrops(targets, 32, 0, 8, lambda hr, g: shapes.append(hr.shape) or shrink(hr, g), group=1)  # type: ignore[func-returns-value]
    crops(0, [3])
    assert shapes == [(1, 3, 64, 64)], "a margin of 16 pixels around the crop"
    with pytest.raises(InputError, match="degradation_group is 0; it must be at least 1"):
        PairCrops(targets, 32, 0, 8, shrink, group=0)


@pytest.mark.parametrize("crop", [24, 80])
def test_crop_that_does_not_fit_is_refused(photos: list[Tensor], crop: int) -> None:
    with pytest.raises(InputError, match=f"run.crop is {crop}; it must be a multiple of 16"):
        pair_crops(photos, crop=crop)


@pytest.mark.parametrize(("pixels", "reason"), [(16, "a multiple of 32"), (32, "autoencoder of 16 or less")])
def test_what_would_cut_a_token_or_part_pixels_from_latents_is_refused(
    photos: list[Tensor], pixels: int, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        PairCrops(Targets(photos, [latents_of(photo) for photo in photos]), 48, 0, 8, shrink, pixels=pixels)


def test_a_batch_made_ahead_is_the_same_and_made_once() -> None:
    asked: list[int] = []
    ahead = Ahead(lambda step, samples: asked.append(step) or [-step, *samples])  # type: ignore[func-returns-value]
    assert [ahead(step, [1, 2]) for step in (3, 4, 5, 9)] == [[-step, 1, 2] for step in (3, 4, 5, 9)]  # 9: resumed
    ahead.pool.shutdown()
    assert sorted(asked) == [3, 4, 5, 6, 9, 10]


def test_shares_of_a_step_are_made_ahead_each() -> None:
    """Micro-batches of one step: the same shares come again at the next."""
    asked: list[tuple[int, ...]] = []
    ahead = Ahead(lambda step, samples: asked.append((step, *samples)) or step)  # type: ignore[func-returns-value]
    for step in (0, 1):
        assert [ahead(step, share) for share in ([0, 1], [2, 3])] == [step, step]
    ahead.pool.shutdown()
    assert sorted(asked) == [(step, *share) for step in (0, 1, 2) for share in ((0, 1), (2, 3))]


def test_what_goes_wrong_ahead_is_told_when_its_step_comes() -> None:
    def batches(step: int, _samples: object) -> int:
        if step == 2:
            raise InputError("step 2 has no batch")
        return step

    ahead = Ahead(batches)
    assert ahead(1, [0]) == 1
    with pytest.raises(InputError, match="step 2"):
        ahead(2, [0])


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """tests/training/spoilt.py, which a spawned process finds too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("spoilt")


@pytest.mark.slow
def test_processes_make_the_same_batches_in_order(spoilt: Any, tmp_path: Path) -> None:
    """Whatever their number, also after a resume and for shares of their own."""
    photo = torch.randint(256, (3, 96, 96), dtype=torch.uint8)
    write_targets(tmp_path, [("one", {"photos": photo, "latents": latents_of(photo).half()})])
    crops = PairCrops(map_targets(tmp_path), 32, 0, 4, spoilt.shrink)
    ahead = AheadInProcesses(crops, workers=2)
    for step, share in ((0, (0, 1)), (0, (2, 3)), (1, (0, 1)), (1, (2, 3)), (2, (0, 1)), (7, (0, 1)), (8, (0, 1))):
        for made, wanted in zip(ahead(step, share), crops(step, share), strict=True):
            assert torch.equal(made, wanted), (step, share)


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_is_told_when_its_step_comes(spoilt: Any) -> None:
    ahead = AheadInProcesses(spoilt.fails_at_two, workers=1)
    assert ahead(1, [0]) == 1
    with pytest.raises(InputError, match="step 2"):
        ahead(2, [0])


@pytest.mark.slow
def test_processes_are_no_forks_of_one_that_has_threads(spoilt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork copies locks that other threads hold, with nobody to release them."""
    monkeypatch.setattr(spoilt, "marked", True)  # a fork would see it
    parent, marked = AheadInProcesses(spoilt.parent_of, workers=1)(0, [0]).tolist()
    assert parent == os.getpid() and not marked


def test_targets_are_mapped_from_their_files(photos: list[Tensor], tmp_path: Path) -> None:
    """Every process maps the same files, and a pickled copy holds no pixels."""
    targets = {f"t{k}": {"photos": photo, "latents": latents_of(photo).half()} for k, photo in enumerate(photos)}
    write_targets(tmp_path, targets.items())
    mapped = map_targets(tmp_path)
    copied = pickle.dumps(mapped)
    assert len(copied) < 2000 and len(mapped.photos) == len(photos) and not len(mapped.lr)
    for found in (mapped, pickle.loads(copied)):
        for k, held in enumerate(targets.values()):
            assert torch.equal(found.photos[k], held["photos"]) and torch.equal(found.latents[k], held["latents"])
    write_targets(tmp_path, [*targets.items()][::-1])
    assert map_targets(tmp_path).name != mapped.name, "the order is part of the name"
    assert torch.equal(mapped.photos[0], photos[0]), "what was mapped before is still there"
