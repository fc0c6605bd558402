"""A mask for one file, or a folder of masks by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.imaging import io
from fluxsr.imaging.resize import bicubic
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing.inputs import plan
from fluxsr.processing.upscale_file import run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures with alpha, without colour, with 16 bits and without a mask, and their masks in a folder among them."""
    rgb = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    for name in ("in/masks", "in/sub"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.dstack([rgb, rgb[..., 0]])).save(tmp_path / "in" / "alpha.png")
    Image.fromarray(rgb[..., 0]).save(tmp_path / "in" / "sub" / "grey.jpg")
    Image.fromarray(rgb[..., 1].astype(np.uint16) * 257).save(tmp_path / "in" / "deep.png")
    Image.fromarray(rgb).save(tmp_path / "in" / "free.png")
    (tmp_path / "in" / "masks" / "sub").mkdir()
    for name in ("ALPHA.png", "deep.tif", "sub/grey.bmp"):
        Image.new("L", (20, 24)).save(tmp_path / "in" / "masks" / name)
    return tmp_path / "in"


@pytest.mark.parametrize("masks", ["masks", "sub/../masks"])
def test_masks_are_found_by_name_and_are_no_inputs(folder: Path, tmp_path: Path, masks: str) -> None:
    Image.new("L", (20, 24)).save(folder / "masks" / "left.png")  # the mask of no picture
    work = plan([str(folder)], tmp_path / "out", as_file=False, mask=folder / masks)
    found = {job.source.name: job.mask and job.mask.name for job in work.jobs}
    assert found == {"alpha.png": "ALPHA.png", "deep.png": "deep.tif", "free.png": None, "grey.jpg": "grey.bmp"}
    assert work.notes == [f"1 of 4 inputs have no mask in {folder / masks}: full strength"]


def test_a_mask_that_does_not_fit_the_inputs_is_one_line(folder: Path, tmp_path: Path) -> None:
    mask = folder / "masks" / "deep.tif"
    with pytest.raises(InputError, match="is one mask, but there are 6 inputs; give a folder of masks"):
        plan([str(folder)], tmp_path / "out", as_file=False, mask=mask)
    with pytest.raises(InputError, match=r"no mask in .* has the name of an input, such as free.png"):
        plan([str(folder / "free.png")], tmp_path / "out", as_file=False, mask=folder / "masks")
    (folder / "masks" / "deep.png").write_bytes(mask.read_bytes())
    with pytest.raises(InputError, match=r"deep.png and .*deep.tif are masks for the same name; remove one of them"):
        plan([str(folder)], tmp_path / "out", as_file=False, mask=folder / "masks")


def test_files_are_plain_where_the_mask_is_0_and_made_again_when_it_changes(
    folder: Path, tmp_path: Path, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluxsr.single.load", lambda model, **options: pipeline)
    out, options = tmp_path / "out", UpscaleOptions(longest=48, format="png")

    def again() -> list[str]:
        work = plan([str(folder)], out, as_file=False, ending=".png", mask=folder / "masks")
        return [path.name for path in run(work, ModelOptions(), options).done]

    assert len(again()) == 4 and again() == []
    for name in ("alpha.png", "deep.png", "sub/grey.png"):
        source = next((folder / name).parent.glob(f"{Path(name).stem}.*"))
        picture, plain = io.read(source), tmp_path / "plain.png"
        assert Image.open(out / name).size == (40, 48)
        io.write_enlarged(picture, [bicubic(picture.lr, (48, 40))], (48, 40), plain, options)
        assert np.array_equal(np.asarray(Image.open(out / name)), np.asarray(Image.open(plain)))
    Image.new("L", (30, 24), 255).save(folder / "masks" / "deep.tif")
    assert again() == ["deep.png"]
