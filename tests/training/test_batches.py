"""Batches of stage 5: what a pair is made of, degraded and encoded."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.backbones import latents
from fluxsr.backbones.tiny import build_autoencoder
from fluxsr.degradation import load_settings
from fluxsr.errors import InputError
from fluxsr.imaging.photographs import DataConfig
from fluxsr.pairs.store import PairStore, TeacherPair
from fluxsr.training import batches
from fluxsr.training.config import DistillConfig, RunConfig
from fluxsr.training.dataset import PairCrops

BICUBIC = load_settings("bicubic")


@pytest.fixture()
def vae() -> Any:
    torch.manual_seed(0)
    return build_autoencoder([8, 8, 8, 16], [0, 1, 1, 1], latent_channels=4).requires_grad_(False)


@pytest.fixture()
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(2):
        coarse = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def config(photographs: Path | None, **changes: Any) -> DistillConfig:
    run = RunConfig(batch=2, crop=32, precision="fp32", device="cpu")
    return DistillConfig(run, DataConfig(shards=[str(photographs)] if photographs else []), **changes)


def pair_crops(chosen: DistillConfig, vae: Any, settings: Any = BICUBIC) -> PairCrops:
    return batches.pair_crops(chosen, vae, settings, Path(mkdtemp()))


def prepared(chosen: DistillConfig, vae: Any, settings: Any = BICUBIC) -> Any:
    return batches.prepared(chosen, vae, pair_crops(chosen, vae, settings))


def test_fresh_noise_needs_no_pairs(vae: Any, photographs: Path) -> None:
    """z_0 is the latent of the crop. The step draws eps, so the batch has zeros."""
    x_0, z_l, z_0, eps = prepared(config(photographs, eps_source="fresh"), vae)(0, range(2))
    assert x_0.shape == (2, 3, 32, 32) and z_l.shape == z_0.shape == eps.shape == (2, 4, 4, 4)
    assert not eps.any() and not z_l.requires_grad
    torch.testing.assert_close(z_0, latents.encode(vae, x_0))


def test_z_l_is_the_latent_of_the_enlarged_partner(vae: Any, photographs: Path) -> None:
    chosen = config(photographs, eps_source="fresh")
    _, lr_up, _, _ = pair_crops(chosen, vae, BICUBIC)(3, range(2))
    torch.testing.assert_close(prepared(chosen, vae)(3, range(2))[1], latents.encode(vae, lr_up))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_of_the_loop_does_not_reach_a_batch(vae: Any, photographs: Path, dtype: torch.dtype) -> None:
    """The first batch after every start is made in the loop's thread, where autocast is on, all others in another."""
    chosen, vae = config(photographs, eps_source="fresh"), vae.to(dtype)
    late, early = (prepared(chosen, vae, load_settings("realesrgan")) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        here = early(1, range(2))
        late(0, range(2))
        ahead = late(1, range(2))
    for name, a, b in zip(("x_0", "z_l", "z_0", "eps"), here, ahead, strict=True):
        assert torch.equal(a, b), name


def test_sampled_pairs_need_no_photographs(vae: Any, tmp_path: Path) -> None:
    """The image is what the pair's latent decodes to, on the 8-bit grid."""
    generator = torch.Generator().manual_seed(0)
    z_0, eps = torch.randn(2, 4, 8, 8, generator=generator)
    store = PairStore(tmp_path / "pairs")
    store.create()
    store.write_shard(0, [TeacherPair("seed-0", z_0, eps)])
    store.write_manifest({"mode": "sample"})
    crops = pair_crops(config(None, pairs=str(store.folder)), vae, BICUBIC)
    image = latents.decode(vae, z_0.half().float()[None])[0].clamp(0, 1) * 255
    assert crops.photos[0].dtype == torch.uint8
    assert float((crops.photos[0].float() - image).abs().max()) <= 0.501
    torch.testing.assert_close(crops.latents[0].float(), torch.stack([z_0, eps]), atol=2e-3, rtol=1e-3)


def test_an_unfinished_store_is_not_trained_on(vae: Any, tmp_path: Path) -> None:
    store = PairStore(tmp_path / "pairs")
    store.create()
    for index in (0, 2):  # shard 1 is missing: what follows is not read
        store.write_shard(index, [TeacherPair(f"seed-{index}", *torch.zeros(2, 4, 8, 8))])
    store.write_manifest({"mode": "sample", "count": 3})
    chosen = config(None, pairs=str(store.folder))
    with pytest.raises(InputError, match="pairs holds 1 of 3 pairs; run the command that made the store again"):
        pair_crops(chosen, vae, BICUBIC)
    store.write_shard(1, [TeacherPair("seed-1", *torch.zeros(2, 4, 8, 8))])
    assert len(pair_crops(chosen, vae, BICUBIC).photos) == 3
    store.write_dropped({"dropped": {"seed-1": "flat"}})
    assert len(pair_crops(chosen, vae, BICUBIC).photos) == 2
    store.write_dropped({"dropped": {f"seed-{index}": "flat" for index in range(3)}})
    with pytest.raises(
        InputError, match="`fluxsr pairs screen` dropped all 3 pairs of .*or delete screened.json there"
    ):
        pair_crops(chosen, vae, BICUBIC)


def test_a_pair_without_its_photograph_is_named(vae: Any, photographs: Path, tmp_path: Path) -> None:
    store = PairStore(tmp_path / "pairs")
    store.create()
    store.write_shard(0, [TeacherPair("elsewhere", torch.zeros(4, 8, 8), torch.zeros(4, 8, 8))])
    store.write_manifest({"mode": "invert"})
    chosen = config(photographs, pairs=str(store.folder))
    with pytest.raises(InputError, match="pair 'elsewhere' has no photograph in data.shards"):
        pair_crops(chosen, vae, BICUBIC)
    chosen.data.limit = 1  # a part of the photographs: their pairs alone are used
    with pytest.raises(
        InputError, match="of 1 pairs in .*pairs, `fluxsr pairs screen` dropped 0, .*; raise data.limit"
    ):
        pair_crops(chosen, vae, BICUBIC)


@pytest.fixture()
def paired(tmp_path: Path) -> Path:
    """One pair whose HR pixel names its row and column, and whose LR pixel names those of its first HR pixel."""
    rows, columns = np.mgrid[:72, :80]
    hr = np.stack([rows * 3, columns * 3, 0 * rows], axis=-1).astype(np.uint8)
    for name, image in (("HR", hr), ("LR", hr[::4, ::4])):
        (tmp_path / "paired" / name).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "paired" / name / "a.png")
    return tmp_path / "paired"


def test_pairs_of_files_are_cut_and_turned_together(vae: Any, paired: Path, tmp_path: Path) -> None:
    """Every LR pixel shows the place of its 4x4 HR pixels, at any offset and in all eight orientations."""
    crops = pair_crops(config(None, eps_source="fresh", paired=str(paired), paired_share=1.0), vae, BICUBIC)
    orientations, tops = set(), set()
    for step in range(12):
        for sample in range(2):
            hr, lr, _ = crops._cut(step, sample)
            assert hr.shape == (3, 64, 64) and lr is not None and lr.shape == (3, 16, 16)
            cells = hr.reshape(3, 16, 4, 16, 4).amin((2, 4))
            assert torch.equal(cells, lr)
            orientations.add(tuple(int(axis[0, 0]) - int(axis[n]) for axis in hr[:2].int() for n in ((0, 1), (1, 0))))
            tops.add(int(lr[0].min()) // 3)
    assert len(orientations) == 8 and tops == {0, 4, 8}
    x_0, lr_up, latent, _ = crops(0, range(2))
    assert x_0.shape == lr_up.shape == (2, 3, 32, 32) and not latent.numel()
    again = config(None, eps_source="fresh", paired=str(paired), paired_share=1.0)
    z_0 = prepared(again, vae)(0, range(2))[2]
    torch.testing.assert_close(z_0, latents.encode(vae, x_0))


def test_the_share_of_pairs_of_files_is_exact(vae: Any, photographs: Path, paired: Path) -> None:
    chosen = config(photographs, eps_source="fresh", paired=str(paired), paired_share=0.25)
    chosen.run.batch = 4
    crops = pair_crops(chosen, vae, BICUBIC)
    from_files = [[crops._cut(step, sample)[1] is not None for sample in range(4)] for step in range(20)]
    assert all(sum(row) == 1 for row in from_files)
    assert all(any(column) for column in zip(*from_files, strict=True)), "every sample of a step meets both kinds"
    assert crops.targets_seen(20) == {"targets_seen": 30.0, "targets_seen/files": 20.0}
    whole = crops(3, range(4))
    assert torch.equal(torch.cat([crops(3, [k])[1] for k in range(4)]), whole[1])


def test_files_that_are_no_pair_are_named(vae: Any, paired: Path) -> None:
    chosen = config(None, eps_source="fresh", paired=str(paired), paired_share=1.0)
    Image.new("RGB", (20, 17)).save(paired / "LR" / "a.png")
    with pytest.raises(InputError, match="pair a of .*: HR is 80x72 and LR 20x17 pixels; HR must be 4 times LR, 80x68"):
        pair_crops(chosen, vae, BICUBIC)
    (paired / "LR" / "a.png").rename(paired / "LR" / "b.png")
    with pytest.raises(InputError, match="1 of 1 images are not in .*HR: b"):
        pair_crops(chosen, vae, BICUBIC)
