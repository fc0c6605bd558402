"""Standard benchmarks: their images, and which results must not be compared.

RealSR and DRealSR are measured in two ways whose results differ by decibels: on full-size images (A, FluxSR's tables),
and on StableSR's crops 128 -> 512 (B, OSEDiff's). A folder is recognised by its images, never by its name.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from fluxsr.errors import InputError
from fluxsr.evaluation.folders import image_size, list_images

SCALE = 4
_LR_NAMES = ("LR", "lr", "test_LR", "LQ", "lq")
_HR_NAMES = ("HR", "hr", "test_HR", "GT", "gt")
_ENDING = re.compile(r"_(?:HR|GT|LR|LQ|LR4|x1|x4)$")  # RealSR: Canon_001_HR, Canon_001_LR4; DRealSR: _x1, _x4

Size = tuple[int, int]


@dataclass(frozen=True)
class Protocol:
    """A benchmark and its name in tables.

    Attributes:
        name: value of ``--protocol``.
        title: title of tables.
        count: number of images.
        paired: whether there is ground truth.
        lr: size of every low-resolution image, width x height; None if sizes differ.
        names: regular expression for the start of every file stem. Without it, a folder is only recognised by option.
        degraded: whether low-resolution images are made from ground truth by a seeded degradation.
    """

    name: str
    title: str
    count: int
    paired: bool
    lr: Size | None = None
    names: str = ""
    degraded: bool = False


_DREALSR = r"(Canon_|DSC_|IMG_|P1|panasonic_|sony_)"  # its five cameras

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("realsr", "RealSR, full size (A)", 100, True, None, r"(Canon|Nikon)_"),
        Protocol("realsr-crops", "RealSR, StableSR's crops 128 -> 512 (B)", 100, True, (128, 128), r"(Canon|Nikon)_"),
        Protocol("drealsr", "DRealSR, full size (A)", 93, True, None, _DREALSR),
        Protocol("drealsr-crops", "DRealSR, StableSR's crops 128 -> 512 (B)", 93, True, (128, 128), _DREALSR),
        Protocol("div2k-val", "DIV2K-val, full size, degraded", 100, True, None, r"0(8\d\d|900)", degraded=True),
        Protocol("realset65", "RealSet65", 65, False),
        Protocol("reallr200", "RealLR200", 200, False),
        Protocol("reallq250", "RealLQ250", 250, False, (256, 256)),
    )
}
_NOT_B = {"realsr", "drealsr"}  # any size except that of the crops


@dataclass(frozen=True)
class Picture:
    """One image of a benchmark; hr is None without ground truth, lr is None if it must be created."""

    stem: str
    lr: Path | None
    hr: Path | None


@dataclass(frozen=True)
class Benchmark:
    """Result of scanning a benchmark folder.

    Attributes:
        pictures: the images in the order of their file stems.
        lr_sizes: number of images by size (width, height).
        protocol: the protocol of the folder; None if it is unknown.
    """

    pictures: list[Picture]
    lr_sizes: Counter[Size]
    protocol: Protocol | None = None

    @property
    def paired(self) -> bool:
        return self.pictures[0].hr is not None

    def line(self) -> str:
        """Describe the folder in one line."""
        if self.protocol:
            return f"{self.protocol.title}: {len(self.pictures)} images"
        sizes = ", ".join(f"{n} of {w}x{h}" for (w, h), n in self.lr_sizes.most_common(3))
        more = " and others" if len(self.lr_sizes) > 3 else ""
        truth = "with" if self.paired else "without"
        near = [one.name for one in PROTOCOLS.values() if not _misfit(one, self)]
        hint = f"; if it is {' or '.join(near)}, say so with --protocol" if near else ""
        return f"no known protocol: {len(self.pictures)} images {truth} ground truth ({sizes}{more}){hint}"


def open_benchmark(folder: Path, protocol: str | None = None) -> Benchmark:
    """Scan a benchmark folder, reading only file headers.

    A folder holds subfolders LR and HR (or lr, test_LR, LQ; hr, test_HR, GT), or files such as Canon_001_LR4 and
    Canon_001_HR side by side, or images alone. Images alone have no ground truth, except for div2k-val, where they are
    the ground truth. Ground truth must be 4 times as large.

    Args:
        folder: folder of the benchmark.
        protocol: name of its protocol; None recognises it.

    Raises:
        InputError: no such folder or protocol, images without a partner, sizes that do not fit, or a folder that does
            not match the protocol.
    """
    folder = Path(folder)
    if protocol is not None and protocol not in PROTOCOLS:
        raise InputError(f"no protocol is called '{protocol}'; known are {', '.join(PROTOCOLS)}")
    wanted = PROTOCOLS[protocol] if protocol is not None else None
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    pictures = _pictures(folder, wanted)
    found = Benchmark(pictures, Counter(map(_sizes, pictures)))
    if wanted is None:
        known = [one for one in PROTOCOLS.values() if one.names and not one.degraded and not _misfit(one, found)]
        return replace(found, protocol=known[0] if len(known) == 1 else None)
    if problem := _misfit(wanted, found):
        raise InputError(f"{folder} is not {wanted.name} ({wanted.title}): {problem}")
    return replace(found, protocol=wanted)


def _misfit(protocol: Protocol, found: Benchmark) -> str:
    """Return the reason why a folder does not match a protocol; empty if it matches."""
    if len(found.pictures) != protocol.count:
        return f"it has {len(found.pictures)} images, not {protocol.count}"
    if found.paired != protocol.paired:
        return f"it is {'with' if found.paired else 'without'} ground truth"
    wrong = [size for size in found.lr_sizes if protocol.lr and size != protocol.lr]
    if wrong and protocol.lr:
        return "an LR image is {}x{}, not {}x{}".format(*wrong[0], *protocol.lr)
    if protocol.name in _NOT_B and set(found.lr_sizes) == {(128, 128)}:
        return f"all LR images are 128x128, which is {protocol.name}-crops"
    for picture in found.pictures:
        if not re.match(protocol.names, picture.stem):
            return f"it has a file {picture.stem}, which that benchmark has not"
    return ""


def _pictures(folder: Path, wanted: Protocol | None) -> list[Picture]:
    lr_folder = next((folder / name for name in _LR_NAMES if (folder / name).is_dir()), None)
    hr_folder = next((folder / name for name in _HR_NAMES if (folder / name).is_dir()), None)
    if wanted and wanted.degraded and lr_folder is None:
        images = list_images(hr_folder or folder)
        return [Picture(stem, None, path) for stem, path in images.items()]
    if lr_folder and hr_folder:
        return _partners(list_images(lr_folder), list_images(hr_folder))
    if lr_folder or hr_folder:
        there, missing = ("LR", "HR") if lr_folder else ("HR", "LR")
        raise InputError(f"{folder} has a folder {there} but none called {missing}")
    images = list_images(folder)
    marked = {side: {s: p for s, p in images.items() if re.search(rf"_{side}$", s)} for side in ("HR", "LR4")}
    if marked["HR"] and marked["LR4"]:
        return _partners(marked["LR4"], marked["HR"])
    return [Picture(stem, path, None) for stem, path in images.items()]


def _partners(lr: dict[str, Path], hr: dict[str, Path]) -> list[Picture]:
    if set(lr) != set(hr):  # names tell the side
        lr, hr = ({_ENDING.sub("", stem): path for stem, path in side.items()} for side in (lr, hr))
    alone = sorted(set(lr) ^ set(hr))
    if alone:
        raise InputError(f"{len(alone)} images have no partner, such as {', '.join(alone[:3])}; LR and HR must match")
    return [Picture(stem, lr[stem], hr[stem]) for stem in sorted(lr)]


def _sizes(picture: Picture) -> Size:
    """Return the size of the LR image, checked against its ground truth, or the size it will be created with."""
    hr = image_size(picture.hr) if picture.hr else None
    if picture.lr is None:
        if hr is None or min(hr) < SCALE:
            raise InputError(f"{picture.stem}: {hr} pixels cannot be reduced by {SCALE}")
        return hr[0] // SCALE, hr[1] // SCALE
    lr = image_size(picture.lr)
    if hr is not None and hr != (lr[0] * SCALE, lr[1] * SCALE):
        raise InputError(
            f"{picture.stem}: HR is {hr[0]}x{hr[1]}, LR {lr[0]}x{lr[1]}; HR must be {SCALE} times as large"
        )
    return lr
