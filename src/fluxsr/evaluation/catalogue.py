"""Every metric by name: which direction is better, what it needs, and the protocol that a table must state."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from fluxsr.errors import InputError

BUILT_IN, PIQ, CVVDP, LPIPS, RAPIDOCR, PYIQA = "built in", "piq", "cvvdp", "lpips", "rapidocr-onnxruntime", "pyiqa"
RUN = "measured while the images were made"

LICENCES = {
    **{PIQ: "Apache-2.0", CVVDP: "MIT", LPIPS: "BSD-2-Clause", RAPIDOCR: "Apache-2.0"},
    PYIQA: "PolyForm Noncommercial",
}
"""Licence of each package that computes metrics."""

NETWORKS = (LPIPS, PYIQA)
"""Packages whose networks download their weights; they run on the device, in the main process."""

# Smallest side in pixels, by metric or by source. piq's ms_ssim halves the image four times under an 11-pixel window.
# In images below 128 pixels, rings of the spectrum are empty, and the neighbours of a harmonic reach the next one.
_SMALLEST = {PIQ: 161, "ssim": 11, "niqe": 96, "piqe": 16, "lpips": 16, "lpips-alex": 64, CVVDP: 16, RAPIDOCR: 30}
_SMALLEST |= {"de2000": 4, "tint": 4, "weave": 16}
_SMALLEST |= dict.fromkeys(("mid_db", "hf_db", "grid4", "grid8", "grid16", "peak16"), 128)
_WHOLE = {"lpips", "lpips-alex", "lpips-vgg", "cvvdp", "legible"}  # they compare whole images, whatever --crop says


@dataclass(frozen=True)
class Metric:
    """One column of a table.

    Attributes:
        name: name of the column, and in ``--metrics``.
        better: "higher", "lower", or "zero" (closer to zero).
        source: "built in", the package that computes it, or where else the value is from.
        needs_hr: whether it compares with ground truth.
        protocol: what is measured, in a few words.
        ideal: value of ground truth against itself; None for metrics without ground truth.
        digits: decimal places in tables.
        model: name of the metric in pyiqa, or of the network in lpips.
    """

    name: str
    better: str
    source: str
    needs_hr: bool
    protocol: str
    ideal: float | None = None
    digits: int = 4
    model: str = ""

    @property
    def smallest(self) -> int:
        """Smallest side of an image in pixels, after cropping if the metric crops."""
        return _SMALLEST.get(self.name) or _SMALLEST.get(self.source, 1)

    @property
    def squares(self) -> int:
        """Number of squares of the smallest side that an image must hold."""
        return 2 if self.name == "niqe" else 1

    def fits(self, width: int, height: int, crop: int) -> bool:
        """Return whether an image of this size can be measured."""
        border = 2 * crop if self.cropped else 0
        columns, rows = ((side - border) // self.smallest for side in (width, height))
        return min(width, height) > border and columns * rows >= self.squares

    @property
    def cropped(self) -> bool:
        """Whether a border is removed from both images."""
        return self.needs_hr and self.name not in _WHOLE

    @property
    def origin(self) -> str:
        """The source, with the licence of a package."""
        return ", ".join(filter(None, (self.source, LICENCES.get(self.source, ""))))

    @property
    def arrow(self) -> str:
        return {"higher": "↑", "lower": "↓", "zero": "→0"}[self.better]


CVVDP_DISPLAY = "standard_4k"  # ColorVideoVDP's own: 30 inches, 200 cd/m2, seen from twice its height
_CROP = "border cropped"

METRICS = {
    metric.name: metric
    for metric in (
        Metric("psnr", "higher", BUILT_IN, True, f"dB, luma BT.601 in 16..235, {_CROP}; 100 if equal", 100, 2),
        Metric("ssim", "higher", BUILT_IN, True, f"luma as psnr, rounded, Gaussian 11x11, {_CROP}", 1),
        Metric("psnr_rgb", "higher", BUILT_IN, True, f"dB, RGB, {_CROP}; 100 if equal", 100, 2),
        Metric("ms_ssim", "higher", PIQ, True, f"RGB, {_CROP}", 1),
        Metric("fsim", "higher", PIQ, True, f"RGB with colour (FSIMc), {_CROP}", 1),
        Metric("vsi", "higher", PIQ, True, f"RGB, {_CROP}", 1),
        Metric("haarpsi", "higher", PIQ, True, f"RGB, {_CROP}", 1),
        Metric("dss", "higher", PIQ, True, f"RGB, {_CROP}", 1),
        Metric("gmsd", "lower", PIQ, True, f"RGB, {_CROP}", 0),
        Metric("mdsi", "lower", PIQ, True, f"RGB, {_CROP}", 0),
        Metric("lpips", "lower", BUILT_IN, True, "LPIPS 0.1, SqueezeNet, whole image; needs --lpips-weights", 0, 4),
        Metric("cvvdp", "higher", CVVDP, True, f"JOD, ColorVideoVDP, {CVVDP_DISPLAY}, whole image", 10, 3),
        Metric("de2000", "lower", BUILT_IN, True, f"CIEDE2000 of means over 4 px squares, {_CROP}", 0, 2),
        Metric("tint", "lower", BUILT_IN, True, f"C*ab added where HR's is 3 or less, 4 px squares, {_CROP}", 0, 3),
        Metric(
            "weave", "lower", BUILT_IN, True, f"luma deviation added where HR is flat, 16 px squares, {_CROP}", 0, 3
        ),
        Metric("legible", "higher", RAPIDOCR, True, "share of characters read in HR that are read in SR", 1, 3),
        Metric("niqe", "lower", BUILT_IN, False, "grey, whole image; needs --niqe-params", None, 2),
        Metric("piqe", "lower", BUILT_IN, False, "grey, whole image", None, 2),
        Metric("mid_db", "zero", BUILT_IN, True, f"dB, luma power over HR's, 1/8..1/4 cycles/px, {_CROP}", 0, 2),
        Metric("hf_db", "zero", BUILT_IN, True, f"dB, luma power over HR's, 1/4..1/2 cycles/px, {_CROP}", 0, 2),
        Metric("grid4", "zero", BUILT_IN, False, "dB, excess at periods of 4 px, whole image", None, 2),
        Metric("grid8", "zero", BUILT_IN, False, "dB, excess at periods of 8 px, whole image", None, 2),
        Metric("grid16", "zero", BUILT_IN, False, "dB, excess at periods of 16 px, whole image", None, 2),
        Metric("peak16", "zero", BUILT_IN, False, "dB, largest 16 px harmonic of the whole set", None, 2),
        Metric("lpips-alex", "lower", LPIPS, True, "LPIPS 0.1, AlexNet, whole image", 0, 4, "alex"),
        Metric("lpips-vgg", "lower", LPIPS, True, "LPIPS 0.1, VGG16, whole image", 0, 4, "vgg"),
        Metric("dists", "lower", PYIQA, True, _CROP, 0, 4, "dists"),
        Metric("musiq", "higher", PYIQA, False, "KonIQ-10k weights", None, 2, "musiq"),
        Metric("maniqa", "higher", PYIQA, False, "KonIQ-10k weights (pyiqa's maniqa)", None, 4, "maniqa"),
        Metric("maniqa-pipal", "higher", PYIQA, False, "PIPAL weights, another metric", None, 4, "maniqa-pipal"),
        Metric("topiq", "higher", PYIQA, False, "topiq_nr, KonIQ-10k weights, ResNet-50", None, 4, "topiq_nr"),
        Metric("clipiqa", "higher", PYIQA, False, "CLIP-IQA without fine-tuning, RN50", None, 4, "clipiqa"),
        Metric("qalign", "higher", PYIQA, False, "Q-Align, quality; 1..5", None, 3, "qalign"),
        Metric("seconds", "lower", RUN, False, "s per megapixel of output, without loading the model", None, 2),
        Metric("memory", "lower", RUN, False, "GB, largest amount on the GPU, or of the process on a CPU", None, 2),
    )
}
"""All metrics, in the order of tables."""

DEFAULT = tuple(name for name, metric in METRICS.items() if metric.source in (BUILT_IN, PIQ, CVVDP))
"""The metrics that download nothing and take little time."""


def select_metrics(names: Sequence[str] | None) -> list[Metric]:
    """Return the named metrics in the order of tables, each once; None selects `DEFAULT`.

    Raises:
        InputError: an unknown name, or no name at all.
    """
    names = DEFAULT if names is None else names
    known = [name for name, metric in METRICS.items() if metric.source != RUN]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
            raise InputError(f"no metric is called '{name}'; {hint}")
    if not names:
        raise InputError("no metric is chosen; name some, or leave --metrics out")
    return [metric for name, metric in METRICS.items() if name in names]
