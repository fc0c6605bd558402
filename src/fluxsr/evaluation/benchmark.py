"""Two folders in, table out: scores images against others of the same file stem. Knows no model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.evaluation import extras
from fluxsr.evaluation.diagnostics import band_db, grid_db, grid_excess, peak16
from fluxsr.evaluation.metrics import crop_border, psnr_rgb, psnr_y, ssim_y
from fluxsr.imaging.io import to_rgb

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
COLUMNS = (
    *("psnr", "ssim", "psnr_rgb", *extras.PIQ_COLUMNS, "niqe", "piqe"),
    *("mid_db", "hf_db", "grid4", "grid8", "grid16", "peak16"),
)
"""All columns, in the order of tables. Better: higher up to dss; lower for gmsd, mdsi, niqe, piqe;
near 0 for the rest."""
_SIGNED = {"mid_db", "hf_db", "grid4", "grid8", "grid16", "peak16"}


@dataclass(frozen=True)
class Report:
    """Scores of one folder."""

    name: str
    crop: int
    """Border left out of metrics against HR, pixels."""
    mean: dict[str, float]
    """Column -> mean over images (peak16: of the whole set)."""
    per_image: dict[str, dict[str, float]] = field(repr=False)
    """File stem -> column -> value."""


def list_images(folder: Path) -> dict[str, Path]:
    """File stem -> path of the images in a folder, sorted.

    Raises:
        InputError: no such folder, no images, or two images of one stem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in found:
            raise InputError(f"two images of one stem: {found[path.stem]} and {path.name}; keep one")
        found[path.stem] = path
    if not found:
        raise InputError(f"no images in {folder}; known endings: {', '.join(sorted(SUFFIXES))}")
    return found


def load_image(path: Path) -> Tensor:
    """Pixels as stored, RGB, float64 (1, 3, H, W) in [0, 1].

    Orientation tags and colour profiles are not applied; 16-bit grey is scaled to 8 bit.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(to_rgb(image), dtype=np.float64)
    except (OSError, UnidentifiedImageError, InputError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


def score_folders(
    sr: Path,
    hr: Path | None = None,
    *,
    name: str | None = None,
    only: Sequence[str] | None = None,
    crop: int = 4,
    niqe_params: Path | None = None,
    optional: bool = True,
) -> Report:
    """Score the images of `sr`, against those of `hr` of the same stem where it is given.

    Args:
        sr: folder of super-resolved images, sides of 128 pixels or more.
        hr: folder of ground truth; None leaves only the columns that need none.
        name: of the row; the folder's name by default.
        only: file stems to score; all by default.
        crop: border left out of metrics against HR, pixels. Many papers take 0.
        niqe_params: NIQE's pristine model (see `extras.no_reference`).
        optional: score with piq and pyiqa as far as they are installed. piq needs sides of 161
            pixels after cropping.

    Raises:
        InputError: missing images, sizes that differ, images that are too small or cannot be read.
    """
    sr_paths = list_images(sr)
    hr_paths = list_images(hr) if hr is not None else None
    stems = list(only) if only is not None else list(sr_paths)
    _check_stems(stems, sr_paths, sr)
    if hr_paths is not None:
        _check_stems(stems, hr_paths, hr)
    pairwise = extras.full_reference() if optional and hr_paths is not None else {}
    alone = extras.no_reference(niqe_params) if optional else {}

    per_image: dict[str, dict[str, float]] = {}
    excesses = []
    with torch.no_grad():
        for stem in stems:
            image = load_image(sr_paths[stem])
            row = {key: float(metric(image.float())) for key, metric in alone.items()}
            if hr_paths is not None:
                row.update(_against(stem, image, load_image(hr_paths[stem]), crop, pairwise))
            excesses.append(grid_excess(image))
            row.update({key: float(value) for key, value in grid_db(excesses[-1]).items()})
            per_image[stem] = {key: row[key] for key in COLUMNS if key in row}
    columns = per_image[stems[0]]
    mean = {key: float(np.mean([row[key] for row in per_image.values()])) for key in columns}
    mean["peak16"] = peak16(torch.cat(excesses))
    return Report(name or Path(sr).name, crop, mean, per_image)


def _check_stems(stems: Sequence[str], paths: dict[str, Path], folder: Path | None) -> None:
    missing = [stem for stem in stems if stem not in paths]
    if missing or not stems:
        shown = ", ".join(missing[:5]) or "(none asked for)"
        raise InputError(f"{len(missing)} of {len(stems)} images are not in {folder}: {shown}")


def _against(
    stem: str,
    sr: Tensor,
    hr: Tensor,
    crop: int,
    pairwise: dict[str, extras.FullReference],
) -> dict[str, float]:
    """Metrics of one image against its ground truth."""
    if sr.shape != hr.shape:
        sizes = [f"{image.shape[-1]}x{image.shape[-2]}" for image in (sr, hr)]
        raise InputError(f"{stem}: SR is {sizes[0]}, HR is {sizes[1]}; they must be of one size")
    sr, hr = crop_border(sr, crop), crop_border(hr, crop)
    if pairwise and min(sr.shape[-2:]) < extras.PIQ_SMALLEST_SIDE:
        raise InputError(
            f"{stem}: piq needs sides of {extras.PIQ_SMALLEST_SIDE} pixels after cropping, got "
            f"{sr.shape[-1]}x{sr.shape[-2]}; score without the optional metrics"
        )
    row = {"psnr": psnr_y(sr, hr), "ssim": ssim_y(sr, hr), "psnr_rgb": psnr_rgb(sr, hr)}
    row["mid_db"], row["hf_db"] = band_db(sr, hr)
    row.update({key: metric(sr.float(), hr.float()) for key, metric in pairwise.items()})
    return {key: float(value) for key, value in row.items()}


def markdown(reports: Sequence[Report]) -> str:
    """One Markdown table, a row a report; a column that a report lacks shows a dash."""
    columns = [key for key in COLUMNS if any(key in report.mean for report in reports)]
    lines = ["| name | n | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for report in reports:
        cells = [_cell(key, report.mean.get(key)) for key in columns]
        lines.append(f"| {report.name} | {len(report.per_image)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if column in _SIGNED or abs(value) >= 2 else f"{value:.4f}"


def to_json(reports: Sequence[Report]) -> str:
    """All reports with their values per image, as JSON."""
    rows = [
        {
            "name": report.name,
            "n": len(report.per_image),
            "crop": report.crop,
            "mean": {key: round(value, 5) for key, value in report.mean.items()},
            "per_image": {
                stem: {key: round(value, 4) for key, value in row.items()} for stem, row in report.per_image.items()
            },
        }
        for report in reports
    ]
    return json.dumps(rows, indent=1) + "\n"
