"""Inversion along a teacher's flow: photographs cut, there and back, photograph by photograph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fluxsr.backbones.loading import load_autoencoder
from fluxsr.errors import InputError
from fluxsr.imaging.photographs import DataConfig, read_photographs
from fluxsr.keyed import keyed_noise
from fluxsr.pairs.config import PairsConfig
from fluxsr.pairs.invert import boxes, encode_crop, invert_pairs, invert_specs, round_trip
from fluxsr.pairs.teacher import load_teacher

CPU = torch.device("cpu")


def noise(count: int, first: int = 0) -> Tensor:
    return torch.stack([keyed_noise((4, 4, 4), first + k) for k in range(count)]).float()


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([16, 32]), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_boxes_are_whole_windows_apart_and_inside(height: int, width: int, window: int, times: int) -> None:
    found = boxes(height, width, window, window * times)
    assert bool(found) == (min(height, width) >= window)
    covered = torch.zeros(height, width, dtype=torch.int)
    for top, left, rows, columns in found:
        assert rows % window == columns % window == 0 and max(rows, columns) <= window * times
        assert top >= 0 and left >= 0 and top + rows <= height and left + columns <= width
        covered[top : top + rows, left : left + columns] += 1
    assert int(covered.max()) <= 1
    if found:  # in the middle: what is left over is the same on both sides, within a pixel
        for line in (covered.amax(1), covered.amax(0)):
            before, after = int(line.argmax()), int(line.flip(0).argmax())
            assert abs(before - after) <= 1


def test_orders_name_crops_by_their_photograph(photographs: Path, options: Callable[..., PairsConfig]) -> None:
    config = options(mode="invert", count=0, data=DataConfig(shards=[str(photographs)]))
    specs = invert_specs(config)  # d is smaller than a window
    assert [(spec.name, spec.box) for spec in specs] == [
        ("a", (0, 0, 64, 64)), ("b@3,6", (3, 6, 64, 64)), ("b@3,70", (3, 70, 64, 64)), ("c@4,9", (4, 9, 32, 32)),
    ]  # fmt: skip
    assert [spec.index for spec in specs] == [0, 1, 2, 3]
    config.count = 2
    assert len(invert_specs(config)) == 2
    config.count, config.crop = 0, 32
    fine = invert_specs(config, latent_pixels=4)  # windows of 16 pixels, which d holds
    assert [spec.box[2:] for spec in fine if spec.name.startswith("d")] == [(16, 32)] * 2


def test_a_pair_cuts_its_part_out_of_the_photograph(photographs: Path, options: Callable[..., PairsConfig]) -> None:
    """What training reads is what was inverted."""
    config = options(mode="invert", count=0, data=DataConfig(shards=[str(photographs)]), check=1)
    vae, teacher = load_autoencoder(config.base, CPU), load_teacher(config, [""], CPU, None)
    specs = invert_specs(config)
    pairs = invert_pairs(teacher, vae, specs)
    by_name = dict(zip(*read_photographs([str(photographs)]), strict=True))
    for spec, pair in zip(specs, pairs, strict=True):
        photo = pair.cut(by_name)
        assert photo is not None and photo.shape[1:] == tuple(8 * side for side in pair.z_0.shape[1:])
        assert torch.equal(encode_crop(vae, spec, CPU)[0].half().float(), pair.z_0)
    assert pairs[1].cut({}) is None
    assert [pair.round_trip is not None for pair in pairs] == [True, False, False, False]


def test_captions_belong_to_photographs(photographs: Path, options: Callable[..., PairsConfig], tmp_path: Path) -> None:
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"a": "a fox", "b": "an owl", "c": "a cat"}), encoding="utf-8")
    config = options(mode="invert", count=0, data=DataConfig(shards=[str(photographs)]), prompts=str(captions))
    assert [spec.prompt for spec in invert_specs(config)] == ["a fox", "an owl", "an owl", "a cat"]
    captions.write_text(json.dumps({"a": "a fox"}), encoding="utf-8")
    with pytest.raises(InputError, match="has no prompt for photograph 'b'"):
        invert_specs(config)
    config.prompts = "composer"
    with pytest.raises(InputError, match="inversion takes one prompt, or a JSON object"):
        invert_specs(config)


def test_there_and_back_beats_fresh_noise_for_every_image(options: Callable[..., PairsConfig]) -> None:
    teacher = load_teacher(options(steps=8), [""], CPU, None)
    z_0 = noise(3)
    errors = round_trip(teacher, z_0, teacher.invert(z_0, [""] * 3), noise(3, 10), [""] * 3)
    assert len(errors) == 3 and all(own < fresh / 5 for own, fresh in errors)


def test_more_steps_and_better_solvers_lose_less(options: Callable[..., PairsConfig]) -> None:
    def error(steps: int, solver: str) -> float:
        teacher = load_teacher(options(steps=steps, solver=solver), [""], CPU, None)
        z_0 = noise(2)
        return max(own for own, _ in round_trip(teacher, z_0, teacher.invert(z_0, [""] * 2), z_0, [""] * 2))

    euler = error(4, "euler")
    assert error(16, "euler") < 0.7 * euler
    assert error(4, "midpoint") < 0.5 * euler and error(4, "heun") < 0.5 * euler


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 48}, "crop is 48; it must be a multiple of 32"),
        ({"window": 32, "crop": 256}, "the largest photograph has 70x140 pixels; a window needs 256x256"),
        ({"count": 9}, "count is 9, but there are 4 crops of photographs"),
    ],
)
def test_options_that_do_not_fit(
    photographs: Path, options: Callable[..., PairsConfig], changes: dict[str, int], message: str
) -> None:
    values = {"count": 0, "data": DataConfig(shards=[str(photographs)]), **changes}
    with pytest.raises(InputError, match=message):
        invert_specs(options(mode="invert", **values))
