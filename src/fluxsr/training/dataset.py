"""Photographs to train on: decoded once, kept as bytes in memory, cropped by keyed randomness."""

from __future__ import annotations

import glob
import io
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.resize import bicubic

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


# What a sample draws for, the last part of its key. 0 would be the key without it: SeedSequence pads with zeros.
TIME, NOISE, SPOIL, DEGRADE = 1, 2, 3, 1 << 20


def keyed_generator(*key: int) -> torch.Generator:
    """A CPU generator whose stream depends on the integers of the key alone (seed, step, sample, purpose)."""
    state = np.random.SeedSequence([k & 0xFFFFFFFF for k in key]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


def sample_generators(seed: int, step: int, samples: Sequence[int], purpose: int) -> list[torch.Generator]:
    """One generator per sample: what it draws does not depend on who shares its batch or its process."""
    return [keyed_generator(seed, step, sample, purpose) for sample in samples]


def normals(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Gaussian noise (B, *shape), each sample by its own generator."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


def read_photographs(sources: Sequence[str], limit: int = 0) -> tuple[list[str], list[Tensor]]:
    """Names and images (3,H,W) uint8 of all photographs in tar shards, folders and files.

    A name is the file's without its suffix; where it comes again it is numbered, so that names are unique.

    Raises:
        InputError: a source that does not exist or holds no image.
    """
    names: list[str] = []
    images: list[Tensor] = []
    seen: Counter[str] = Counter()
    for source in sources:
        paths, before = sorted(glob.glob(source)), len(images)
        if not paths:
            raise InputError(f"no such photographs: {source}; set data.shards to tar shards or folders")
        for path in paths:
            for name, data in _members(Path(path)):
                seen[name] += 1  # folders may repeat a name; a pair is found by its photograph's
                names.append(name if seen[name] == 1 else f"{name}~{seen[name]}")
                images.append(_decode(data, f"{name} of {path}"))
                if limit and len(images) == limit:
                    return names, images
        if len(images) == before:
            raise InputError(
                f"no image found in {source}; known are {', '.join(sorted(IMAGE_SUFFIXES))}, in .tar or bare"
            )
    if not images:
        raise InputError("no photographs given; set data.shards (and data.validation) to tar shards or folders")
    return names, images


def _decode(data: io.BytesIO, what: str) -> Tensor:
    try:
        picture = np.asarray(Image.open(data).convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read photograph {what}: {error}; take it out of data.shards") from error
    return torch.from_numpy(picture.transpose(2, 0, 1).copy())


def _members(path: Path) -> Iterator[tuple[str, io.BytesIO]]:
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            for member in tar:
                data = tar.extractfile(member) if Path(member.name).suffix.lower() in IMAGE_SUFFIXES else None
                if data is not None:
                    yield Path(member.name).stem, io.BytesIO(data.read())
    else:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix.lower() in IMAGE_SUFFIXES:
                yield file.stem, io.BytesIO(file.read_bytes())


class PhotoCrops:
    """Random crops of photographs; sample k of a step is always the same."""

    def __init__(self, images: list[Tensor], crop: int, seed: int):
        self.images = [image for image in images if min(image.shape[1:]) >= crop]
        if not self.images:
            raise InputError(f"no photograph is as large as the crop of {crop} pixels; lower run.crop")
        self.crop, self.seed = crop, seed

    def __call__(self, step: int, samples: Sequence[int]) -> Tensor:
        """These samples of a step: (B,3,crop,crop), RGB in [0,1]."""
        crops = [self._crop(keyed_generator(self.seed, step, sample)) for sample in samples]
        return torch.stack(crops).float() / 255

    def _crop(self, generator: torch.Generator) -> Tensor:
        def draw(high: int) -> int:
            return int(torch.randint(high, (), generator=generator))

        image = self.images[draw(len(self.images))]
        top, left = draw(image.shape[1] - self.crop + 1), draw(image.shape[2] - self.crop + 1)
        image = image[:, top : top + self.crop, left : left + self.crop]
        image = image.flip(2) if draw(2) else image
        return image.rot90(draw(4), (1, 2))


class PairCrops:
    """Crops of teacher pairs: the photograph x_0, its LR partner drawn afresh, and the teacher's eps.

    A crop starts on the grid of tokens, so that pixels and noise belong together. The degradation sees a
    margin around the crop, so that blur has no border inside it. It is drawn for fixed groups of ``group``
    neighbours, which may share its sizes; a group is always degraded whole, so that the share of a process
    does not change what is drawn.
    """

    MARGIN = 16  # pixels

    def __init__(
        self,
        photos: list[Tensor],
        eps: list[Tensor],
        crop: int,
        seed: int,
        degradation: Callable[[Tensor, torch.Generator], Tensor],
        group: int = 2,
        device: torch.device | None = None,
    ):
        """``photos``: (3,H,W) uint8; ``eps``: (C,H/8,W/8) of the same photographs; ``degradation``: HR -> LR, x4,
        on ``device``."""
        if crop % 16 or crop + 2 * self.MARGIN > min(min(photo.shape[1:]) for photo in photos):
            raise InputError(f"run.crop is {crop}; it must be a multiple of 16 and fit the photographs with a margin")
        self.photos, self.eps, self.crop, self.seed = photos, eps, crop, seed
        self.degradation, self.group, self.device = degradation, group, device

    def __call__(self, step: int, samples: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """(x_0, lr_up, eps) of these samples: (B,3,n,n) twice, RGB in [0,1], and (B,C,n/8,n/8)."""
        groups = {first: self._group(step, first) for first in {s - s % self.group for s in samples}}
        rows = [[part[s % self.group] for part in groups[s - s % self.group]] for s in samples]
        x_0, lr_up, eps = (torch.stack(column) for column in zip(*rows, strict=True))
        return x_0, lr_up, eps

    def _group(self, step: int, first: int) -> tuple[Tensor, Tensor, Tensor]:
        cut = [self._cut(keyed_generator(self.seed, step, first + k)) for k in range(self.group)]
        images = torch.stack([wide for wide, _ in cut]).to(self.device).float() / 255
        lr = self.degradation(images, keyed_generator(self.seed, step, first, DEGRADE))
        lr_up = bicubic(lr, (images.shape[-2], images.shape[-1]))  # the kernel of inference
        inner = slice(self.MARGIN, -self.MARGIN)
        return images[..., inner, inner], lr_up[..., inner, inner], torch.stack([noise for _, noise in cut])

    def _cut(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A photograph's crop with its margin, uint8, and the eps of the crop."""
        index, y, x = torch.rand(3, generator=generator).tolist()
        photo, eps = (images[int(index * len(self.photos))] for images in (self.photos, self.eps))
        side = self.crop + 2 * self.MARGIN
        top, left = (16 * int(r * ((n - side) // 16 + 1)) for r, n in zip((y, x), photo.shape[1:], strict=True))
        wide = photo[:, top : top + side, left : left + side]
        top, left = (top + self.MARGIN) // 8, (left + self.MARGIN) // 8
        return wide, eps[:, top : top + self.crop // 8, left : left + self.crop // 8].float()
