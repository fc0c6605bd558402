"""Folders in, scores out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.evaluation import folder_scores, image_scores, score_folders, table_of
from fluxsr.evaluation.catalogue import DEFAULT, METRICS
from fluxsr.evaluation.folders import load_image
from fluxsr.evaluation.niqe import PristineModel, save_model
from fluxsr.losses.lpips import load_lpips

BUILT_IN = [name for name, metric in METRICS.items() if metric.source == "built in"]


def score(*folders, metrics=BUILT_IN, crop=4, **options):
    return score_folders(*folders, metrics=metrics, crop=crop, **options)


def test_scores_are_means_over_images_matched_by_stem(folders):
    report = score(*folders)
    assert list(report.per_image) == ["a", "b"]
    assert report.mean["psnr"] == pytest.approx((30.54653 + 30.497017) / 2, abs=1e-5)
    # The mean spectrum's peak, not the mean of peaks.
    assert report.mean["peak16"] < (11.299108 + 12.905133) / 2
    assert "peak16" not in report.per_image["a"]
    some = score(*folders, only=["b"], name="some", crop=0, metrics=["hf_db", "psnr", "grid4"])
    assert some.name == "some" and list(some.mean) == ["psnr", "hf_db", "grid4"] and list(some.per_image) == ["b"]
    assert some.mean["psnr"] != report.per_image["b"]["psnr"], "the border counts where nothing is cropped"
    assert some.mean["grid4"] == report.per_image["b"]["grid4"]
    assert set(score(folders[0]).mean) == {"piqe", "grid4", "grid8", "grid16", "peak16"}, "without ground truth"


def test_ground_truth_against_itself_is_ideal(folders, lpips_weights):
    """ColorVideoVDP's ideal has its own test, which is slow. These images have neither grey nor flat areas."""
    ideals = {
        name: METRICS[name].ideal
        for name in DEFAULT
        if METRICS[name].needs_hr and name not in ("cvvdp", "tint", "weave")
    }
    assert len(ideals) == 14
    report = score_folders(folders[1], folders[1], metrics=list(ideals), lpips_weights=lpips_weights)
    assert {name: report.mean[name] for name in ideals} == pytest.approx(ideals, abs=1e-5)


@pytest.mark.slow  # processes that import torch
def test_processes_change_nothing(folders, lpips_weights):
    told = []
    alone = score(*folders, lpips_weights=lpips_weights)
    together = score(*folders, lpips_weights=lpips_weights, workers=2, progress=lambda *counts: told.append(counts))
    assert together == alone
    assert told == [(1, 2), (2, 2)]


@pytest.mark.slow
def test_an_error_of_a_process_is_the_same_line(folders):
    sr, hr = folders
    (sr / "a.png").write_bytes((sr / "b.png").read_bytes())
    with pytest.raises(InputError, match="a: SR is 203x181, HR is 192x176"):
        score(sr, hr, workers=2)


def test_lpips_is_of_whole_images_by_the_weights_that_are_named(folders, lpips_weights, caplog):
    report = score(*folders, metrics=["lpips"], lpips_weights=lpips_weights)
    names = zip(folders, ("a.png", "a.bmp"), strict=True)
    sr, hr = (load_image(folder / name).float() * 2 - 1 for folder, name in names)
    assert report.per_image["a"]["lpips"] == pytest.approx(float(load_lpips(lpips_weights)(sr, hr)), rel=1e-5)
    assert report.per_image["a"]["lpips"] > 0 and not caplog.records


def test_lpips_needs_its_weights(folders, monkeypatch, caplog):
    monkeypatch.setattr(folder_scores, "cached_lpips", lambda: None)
    assert list(score(*folders, metrics=["psnr", "lpips"]).mean) == ["psnr"]
    assert [record.getMessage() for record in caplog.records] == [
        "column lpips left out: name its weights with --lpips-weights (docs/evaluation.md says which)"
    ]
    with pytest.raises(InputError, match="no LPIPS weights at"):
        score(*folders, metrics=["lpips"], lpips_weights=folders[0] / "absent.safetensors")


def test_a_judge_of_whole_images_gets_no_crop(folders, monkeypatch):
    seen = []
    judge = SimpleNamespace(predict=lambda sr, hr, dim_order: (seen.append(sr.shape) or torch.tensor(9.5), {}))
    monkeypatch.setitem(sys.modules, "pycvvdp", SimpleNamespace(cvvdp=lambda **_: judge))
    monkeypatch.setattr(image_scores, "_is_installed", lambda package: True)
    report = score(*folders, metrics=["psnr", "cvvdp"])
    assert report.mean["cvvdp"] == 9.5 and list(report.mean) == ["psnr", "cvvdp"]
    assert [shape[-2:] for shape in seen] == [(176, 192), (181, 203)]


def test_a_learned_metric_that_loads_joins_the_rest_and_one_that_does_not_is_left_out(folders, monkeypatch, caplog):
    def create_metric(name, device):
        if name != "dists":
            raise OSError("no connection\nsecond line")
        return lambda sr, hr: (sr - hr).abs().mean()

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    monkeypatch.setattr(image_scores, "_is_installed", lambda package: True)
    report = score(*folders, metrics=["psnr", "dists", "musiq"])
    assert list(report.mean) == ["psnr", "dists"] and report.mean["dists"] > 0
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["column musiq left out: its package cannot be loaded (no connection)"]
    with pytest.raises(InputError, match="no column could be computed"):
        score(*folders, metrics=["musiq"])


@pytest.mark.slow
def test_built_in_metrics_import_no_optional_package(folders):
    code = (
        "import sys\nfrom fluxsr.evaluation import score_folders\n"
        f"report = score_folders({str(folders[0])!r}, {str(folders[1])!r}, metrics={BUILT_IN!r})\n"
        "assert 'ssim' in report.mean and 'piqe' in report.mean\n"
        "print([name for name in ('piq', 'pyiqa', 'pycvvdp', 'lpips', 'torchvision', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_what_is_wrong_is_said(folders, tmp_path):
    sr, hr = folders
    with pytest.raises(InputError, match="no such folder"):
        score_folders(tmp_path / "absent")
    with pytest.raises(InputError, match=r"1 of 2 images are not in .*: c"):
        score_folders(sr, hr, only=["a", "c"])
    (hr / "b.bmp").rename(hr / "c.bmp")
    with pytest.raises(InputError, match="not in .*hr: b"):
        score_folders(sr, hr, metrics=["psnr"])
    (sr / "b.png").rename(sr / "c.png")
    (sr / "a.png").rename(sr / "b.png")
    (sr / "c.png").rename(sr / "a.png")
    with pytest.raises(InputError, match="a: SR is 203x181, HR is 192x176"):
        score_folders(sr, hr, only=["a"], metrics=["psnr"])
    with pytest.raises(InputError, match="no metric is called 'pnsr'"):
        score(sr, metrics=["pnsr"])
    with pytest.raises(InputError, match="nothing can be measured of psnr, ssim without ground truth"):
        score(sr, metrics=["psnr", "ssim"])


def test_niqe_needs_its_model_and_two_squares(folders, tmp_path, caplog):
    path = tmp_path / "own.npz"
    save_model(PristineModel(torch.ones(36).double(), torch.eye(36).double()), path)
    pixels = np.random.default_rng(0).integers(0, 256, (192, 192, 3), dtype=np.uint8)
    for stem in "ab":
        Image.fromarray(pixels).save(folders[0] / f"{stem}.png")
    assert score(folders[0], metrics=["niqe", "piqe"], niqe_params=path).mean["niqe"] > 0
    assert set(score(folders[0], metrics=["niqe", "piqe"]).mean) == {"piqe"}
    Image.fromarray(pixels[:191, :191]).save(folders[0] / "a.png")
    assert set(score(folders[0], only=["a"], metrics=["niqe", "piqe"], niqe_params=path).mean) == {"piqe"}
    assert [record.getMessage() for record in caplog.records] == [
        "column niqe left out: name its pristine model with --niqe-params (fluxsr fit-niqe makes one)",
        "columns niqe left out: they need 2 squares of 96 pixels, and a is 191x191",
    ]


@pytest.mark.parametrize(
    ("size", "kept"),
    [
        ((130, 130), "psnr ssim psnr_rgb lpips de2000 tint weave piqe grid4 grid8 grid16"),
        ((18, 17), "psnr psnr_rgb lpips de2000 tint piqe"),
        ((9, 9), "psnr psnr_rgb"),
    ],
)
def test_an_image_that_is_too_small_for_a_column_is_left_out_of_it_with_a_line(
    tmp_path, size, kept, lpips_weights, caplog
):
    folders = tmp_path / "sr", tmp_path / "hr"
    for seed, folder in enumerate(folders):
        folder.mkdir()
        for name, (width, height) in (("large", (200, 200)), ("small", size)):
            pixels = np.random.default_rng(seed).integers(100, 103, (height, width, 1), dtype=np.uint8).repeat(3, 2)
            Image.fromarray(pixels).save(folder / f"{name}.png")
    names = [name for name in DEFAULT if name not in ("niqe", "cvvdp")]
    report = score(*folders, metrics=names, lpips_weights=lpips_weights)
    assert set(report.mean) == set(names) and set(report.per_image["small"]) == set(kept.split())
    assert report.mean["fsim"] == report.per_image["large"]["fsim"]
    lines = [record.getMessage() for record in caplog.records]
    told = {name for line in lines for name in line.split(" are of 1 of 2")[0].removeprefix("columns ").split(", ")}
    assert told == set(names) - set(kept.split()) - ({"peak16"} if size[0] >= 128 else set())
    assert all(f"and small is {size[0]}x{size[1]}" in line for line in lines) and "after cropping 4" in lines[0]
    notes = table_of([report]).notes
    assert any(note.startswith("fsim") and note.endswith("; sr: 1 of 2 images") for note in notes)
    with pytest.raises(InputError, match="no column could be computed; see the lines above"):
        score(*folders, only=["small"], metrics=["fsim"])


GB = 1_000_000_000


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """64 cores and 1000 GB; gives the folder in which its kernel tells of limits."""
    monkeypatch.setattr(folder_scores.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(folder_scores.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000 * GB))
    monkeypatch.setattr(folder_scores, "_CGROUP", tmp_path)
    return tmp_path


def test_workers_are_as_many_as_cores_and_the_memory_of_the_container_allow(machine: Path) -> None:
    assert folder_scores.workers_for(1_000_000) == 64
    (machine / "memory.max").write_text(f"{8 * GB}\n")
    (machine / "memory.current").write_text(f"{4 * GB}\n")
    assert folder_scores.free_memory() == 4 * GB
    assert folder_scores.workers_for(8_000_000) == 1 < folder_scores.workers_for(100_000) < 8
    (machine / "memory.max").write_text("1000")
    assert folder_scores.free_memory() == 0 and folder_scores.workers_for(10**9) == 1, "one is always left"
    (machine / "memory.max").write_text("max\n")
    assert folder_scores.free_memory() == 1000 * GB
    (machine / "memory").mkdir()  # where older containers keep it
    (machine / "memory" / "memory.limit_in_bytes").write_text(f"{3 * GB}\n")
    (machine / "memory" / "memory.usage_in_bytes").write_text(f"{GB}\n")
    assert folder_scores.free_memory() == 2 * GB


def test_scores_ask_how_many_fit_the_largest_image(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(folder_scores, "workers_for", lambda pixels: asked.append(pixels) or 1)
    score_folders(*folders, metrics=["psnr"], workers=None)
    assert asked == [203 * 181]
