"""Animations and files of several pages are upscaled whole: what is kept of them, and that frames are like pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

from fluxsr.errors import InputError, TooLargeError
from fluxsr.imaging import io
from fluxsr.imaging.decode import decode_frames
from fluxsr.imaging.encode import encode
from fluxsr.imaging.formats import ENDINGS
from fluxsr.imaging.raster import Frame, ImageSpec
from fluxsr.imaging.resize import bicubic
from fluxsr.imaging.settings import Settings
from fluxsr.options import UpscaleOptions
from fluxsr.processing import upscale_file
from fluxsr.processing.inputs import Job

TIMES, PLAYS, WIDTH, HEIGHT = (100, 50, 70), 3, 20, 16
FIRST = "has several pages or frames; the first was taken"
SAVED: dict[str, dict[str, Any]] = {".webp": {"lossless": True}, ".gif": {"loop": PLAYS - 1}}


class Sharper:
    """A pipeline whose result depends on the pixels, and whose model fails at black pictures."""

    sources, adapter_config = ("sharper", "none"), SimpleNamespace(strength=1.0)

    def upscale_tensor(self, lr: Tensor, settings: Settings) -> Tensor:
        if not lr.any():
            raise ZeroDivisionError("a bug in the model")
        assert settings.progress is not None
        settings.progress(1, 1)
        hr = bicubic(lr, settings.options.size_of(*lr.shape[-2:]))
        sharp = (2 * hr - bicubic(lr.flip(-1), (hr.shape[-2], hr.shape[-1])).flip(-1).mean()).clamp(0, 1)
        return sharp if settings.mask is None else torch.lerp(hr, sharp, bicubic(settings.mask, hr.shape[-2:]))


def upscaled(source: Path, target: Path, **options: Any) -> list[str]:
    most, progress = options.pop("most", float("inf")), options.pop("progress", lambda *_: None)
    job, chosen = Job(source, target, options.pop("mask", None)), UpscaleOptions(**options)
    picture = upscale_file.read(job, chosen)
    return upscale_file.upscale(Sharper(), chosen, job, picture, progress, most=most)()  # type: ignore[arg-type]


def frame(number: int, channels: int = 3, height: int = HEIGHT, whole: int = 255) -> np.ndarray:
    y, x = np.mgrid[:height, :WIDTH] / 20
    planes = [np.sin(3 * x + number + c) * np.cos(2 * y - number * c) / 2 + 0.5 for c in range(channels)]
    return (np.stack(planes, -1) * whole).astype(np.uint8 if whole < 256 else np.uint16)


def animation(path: Path, frames: list[np.ndarray] | None = None, times: tuple[int, ...] = TIMES) -> Path:
    first, *others = [Image.fromarray(pixels) for pixels in frames or [frame(number) for number in range(3)]]
    options = {"duration": list(times), "loop": PLAYS, **SAVED.get(path.suffix, {})}
    first.save(path, save_all=True, append_images=others, **options)
    return path


def composed(path: Path) -> list[Image.Image]:
    """The frames of a file as Pillow shows them."""
    with Image.open(path) as image:
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(image.convert("RGBA"))
        return found


def alone(image: Image.Image, target: Path, **options: Any) -> np.ndarray:
    """The result for one frame that was saved as a still picture."""
    source = target.with_name("alone.png")
    image.save(source)
    upscaled(source, still := target.with_name(f"still{target.suffix}"), **options)
    return np.asarray(composed(still)[0])


@pytest.mark.parametrize("ending", [".gif", ".png", ".webp", ".avif"])
@pytest.mark.parametrize("written", [".gif", ".png", ".webp", ".avif"])
def test_an_animation_keeps_its_frames_times_and_loops(tmp_path: Path, ending: str, written: str) -> None:
    source, target = animation(tmp_path / f"a{ending}"), tmp_path / f"b{written}"
    upscaled(source, target, lossless=False)
    plays = 0 if ending == ".avif" else PLAYS  # Pillow writes no others
    found = [raster.frame for raster in decode_frames(target)]
    assert [(one.count, one.milliseconds, one.plays) for one in found] == [(3, time, plays) for time in TIMES]
    for before, after in zip(composed(source), composed(target), strict=True):
        assert after.size == (4 * WIDTH, 4 * HEIGHT)
        difference = np.abs(np.asarray(after).astype(int) - alone(before, target, lossless=False)).max()
        assert difference <= (24 if written == ".avif" else 0), "AVIF encodes how frames differ"


def test_a_frame_may_last_longer_than_a_minute(tmp_path: Path) -> None:
    times = (70_001, 100, 5_000_000)
    source, target = animation(tmp_path / "a.webp", times=times), tmp_path / "b.png"
    upscaled(source, target)
    found = [raster.frame.milliseconds for raster in decode_frames(target)]
    assert found == pytest.approx(times, rel=1e-3), "an APNG states fractions of 16 bits"


@pytest.mark.parametrize("sixteen", [False, True])
def test_pages_keep_number_size_depth_and_description(tmp_path: Path, sixteen: bool) -> None:
    source, target = tmp_path / "a.tif", tmp_path / "b.tif"
    kinds = [(3, 16, 2), (1, 24, 0), (4, 20, 1)]  # channels, height, reduced copies
    with tifffile.TiffWriter(source, byteorder=">") as tiff:
        for number, (channels, height, copies) in enumerate(kinds):
            pixels = frame(number, channels, height, 65535 if sixteen else 255).squeeze()
            kind = {"extrasamples": [2]} if channels == 4 else {}
            photometric = "minisblack" if channels == 1 else "rgb"
            tiff.write(pixels, photometric=photometric, description=f"page {number}", metadata=None, **kind)
            for _ in range(copies):
                tiff.write(pixels[::2, ::2], photometric=photometric, subfiletype=1, metadata=None, **kind)
    assert upscaled(source, target) == []
    with tifffile.TiffFile(target) as tiff:
        assert [page.shape[:2] for page in tiff.pages] == [(4 * height, 4 * WIDTH) for _, height, _ in kinds]
        assert [page.description for page in tiff.pages] == ["page 0", "page 1", "page 2"]
        assert {page.dtype for page in tiff.pages} == {np.dtype(np.uint16 if sixteen else np.uint8)}
        pages = [page.asarray() for page in tiff.pages]
    for number, (channels, height, _) in enumerate(kinds):
        kind = {"extrasamples": [2]} if channels == 4 else {}
        pixels = frame(number, channels, height, 65535 if sixteen else 255).squeeze()
        tifffile.imwrite(tmp_path / "c.tif", pixels, photometric="minisblack" if channels == 1 else "rgb", **kind)
        upscaled(tmp_path / "c.tif", tmp_path / "d.tif")
        np.testing.assert_array_equal(pages[number], tifffile.imread(tmp_path / "d.tif"))


@pytest.mark.parametrize("ending", [".gif", ".tif", ".webp"])
def test_the_first_frame_alone_is_the_result_for_a_picture(tmp_path: Path, ending: str) -> None:
    source, still = animation(tmp_path / f"a{ending}"), tmp_path / f"still{ending}"
    target, other = (tmp_path / f"{name}{'.png' if ending == '.gif' else ending}" for name in "bc")
    with Image.open(source) as image:
        image.save(still, **SAVED.get(ending, {}))
    assert upscaled(source, target, first_frame=True, lossless=True) == [FIRST]
    upscaled(still, other, lossless=True)
    assert ending == ".tif" or target.read_bytes() == other.read_bytes()
    np.testing.assert_array_equal(composed(target)[0], composed(other)[0])
    assert upscaled(source, jpeg := tmp_path / "b.jpg") == [FIRST] and len(composed(jpeg)) == 1


def test_animations_do_not_hold_pages_and_pages_have_no_times(tmp_path: Path) -> None:
    pages = animation(tmp_path / "a.tif")
    assert upscaled(pages, tmp_path / "b.webp") == [FIRST]
    notes = upscaled(animation(tmp_path / "a.gif"), tmp_path / "c.tif")
    assert notes == ["its times and loops are dropped: TIFF cannot store them"]
    assert len(composed(tmp_path / "c.tif")) == 3


@pytest.mark.parametrize("written", [".gif", ".png", ".webp", ".avif"])
def test_equal_frames_are_not_merged_and_transparency_is_no_trail(tmp_path: Path, written: str) -> None:
    whole, hole = frame(0, 4), frame(0, 4)
    whole[..., 3] = hole[..., 3] = 255
    hole[4:, 4:, 3] = 0
    spec = ImageSpec(WIDTH, HEIGHT, 4, frame=Frame(4, 100, 1))
    with (tmp_path / "a.png").open("w+b") as file:
        encode(file, ENDINGS[".png"], [(spec, [pixels]) for pixels in (whole, whole, hole, whole)])
    upscaled(tmp_path / "a.png", target := tmp_path / f"b{written}")
    assert [np.asarray(image)[-1, -1, 3] for image in composed(target)] == [255, 255, 0, 255]
    assert [raster.frame for raster in decode_frames(target)] == 4 * [Frame(4, 100, 1)]


def test_frames_of_16_bits_become_8_with_a_note_but_not_a_first_one(tmp_path: Path) -> None:
    spec = ImageSpec(WIDTH, HEIGHT, 3, True, frame=Frame(2))
    with (tmp_path / "a.png").open("w+b") as file:
        encode(file, ENDINGS[".png"], [(spec, [frame(number, whole=65535)]) for number in range(2)])
    assert upscaled(tmp_path / "a.png", tmp_path / "b.png") == ["has 16 bits per channel, of which 8 are read"]
    assert upscaled(tmp_path / "a.png", tmp_path / "c.png", first_frame=True) == [FIRST]
    assert io.read(tmp_path / "c.png").sixteen and len(composed(tmp_path / "b.png")) == 2


def test_a_mask_the_size_and_what_made_it_hold_for_every_frame(tmp_path: Path) -> None:
    source, mask = animation(tmp_path / "a.png"), tmp_path / "mask.png"
    Image.new("L", (WIDTH, HEIGHT), 0).save(mask)
    upscaled(source, tmp_path / "b.png", mask=mask, width=50)
    for number, image in enumerate(composed(tmp_path / "b.png")):
        lr = io.to_tensor(Image.fromarray(frame(number)))
        assert image.convert("RGB").tobytes() == io.to_pil(bicubic(lr, (40, 50))).tobytes()
    assert b"compositeWithTrainedAlgorithmicMedia" in (tmp_path / "b.png").read_bytes()


def test_progress_shows_frames(tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []
    upscaled(animation(tmp_path / "a.gif"), tmp_path / "b.png", progress=lambda *done: seen.append(done))
    assert seen == [(1 / 3, "frame 1 of 3"), (2 / 3, "frame 2 of 3"), (1, "frame 3 of 3")]


@pytest.mark.parametrize("ending", [".gif", ".tif"])
def test_limits_of_pixels_hold_for_all_frames_together(tmp_path: Path, ending: str) -> None:
    source, pixels = animation(tmp_path / f"a{ending}"), WIDTH * HEIGHT
    with pytest.raises(TooLargeError, match="its first 2 results exceed the limit of 6000 pixels"):
        upscaled(source, target := tmp_path / "b.tif", most=6000)
    assert not target.exists()
    upscaled(source, target, most=3 * 16 * pixels, max_pixels=pixels)


@pytest.mark.parametrize("written", [".gif", ".png", ".webp", ".avif", ".tif"])
def test_a_model_that_fails_at_a_later_frame_leaves_nothing_and_is_no_output_error(
    tmp_path: Path, written: str
) -> None:
    source = animation(tmp_path / "a.png", [frame(0), frame(1), frame(2) * 0])
    with pytest.raises(ZeroDivisionError):
        upscaled(source, tmp_path / f"b{written}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_animation_that_is_cut_off_is_refused_but_its_first_frame_is_not(tmp_path: Path) -> None:
    source = animation(tmp_path / "a.gif")
    source.write_bytes(source.read_bytes()[:-300])
    with pytest.raises(InputError, match="a.gif is damaged or cut off"):
        upscaled(source, tmp_path / "b.png")
    assert upscaled(source, tmp_path / "b.png", first_frame=True) == [FIRST]
