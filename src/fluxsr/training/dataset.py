"""Photographs to train on: decoded once, kept as bytes in memory, cropped by keyed randomness."""

from __future__ import annotations

import glob
import io
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.resize import bicubic

T = TypeVar("T")

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def keyed_generator(*key: int) -> torch.Generator:
    """A CPU generator whose stream depends on the integers of the key alone (seed, step, ...)."""
    state = np.random.SeedSequence([k & 0xFFFFFFFF for k in key]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


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
    """Random crops of photographs; batch k of a seed is always the same."""

    def __init__(self, images: list[Tensor], crop: int, batch: int, seed: int):
        self.images = [image for image in images if min(image.shape[1:]) >= crop]
        if not self.images:
            raise InputError(f"no photograph is as large as the crop of {crop} pixels; lower run.crop")
        self.crop, self.batch, self.seed = crop, batch, seed

    def __call__(self, step: int) -> Tensor:
        """Batch of one step: (B,3,crop,crop), RGB in [0,1]."""
        crops = []
        for sample in range(self.batch):
            generator = keyed_generator(self.seed, step, sample)
            crops.append(self._crop(generator))
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
    """Crops of teacher pairs: the photograph x_0, its LR partner drawn afresh, its latent z_0 and the teacher's eps.

    A crop starts on the grid of tokens, so that pixels and latents belong together. The degradation sees a
    margin around the crop, so that blur has no border inside it; z_0 is a cut of the whole image's latent and knows
    no border either.
    """

    MARGIN = 16  # pixels

    def __init__(
        self,
        photos: list[Tensor],
        latents: list[Tensor],
        crop: int,
        batch: int,
        seed: int,
        degradation: Callable[[Tensor, torch.Generator], Tensor],
    ):
        """``photos``: (3,H,W) uint8; ``latents``: (2,C,H/8,W/8), their z_0 and eps; ``degradation``: HR -> LR, x4."""
        if crop % 16 or crop + 2 * self.MARGIN > min(min(photo.shape[1:]) for photo in photos):
            raise InputError(f"run.crop is {crop}; it must be a multiple of 16 and fit the photographs with a margin")
        self.photos, self.latents, self.crop, self.batch, self.seed = photos, latents, crop, batch, seed
        self.degradation = degradation

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(x_0, lr_up, z_0, eps) of one step: (B,3,n,n) twice, RGB in [0,1], and (B,C,n/8,n/8) twice."""
        wide, pairs = [], []
        for sample in range(self.batch):
            generator = keyed_generator(self.seed, step, sample)
            index, y, x = torch.rand(3, generator=generator).tolist()
            photo, pair = (images[int(index * len(self.photos))] for images in (self.photos, self.latents))
            side = self.crop + 2 * self.MARGIN
            top, left = (16 * int(r * ((n - side) // 16 + 1)) for r, n in zip((y, x), photo.shape[1:], strict=True))
            wide.append(photo[:, top : top + side, left : left + side])
            top, left = (top + self.MARGIN) // 8, (left + self.MARGIN) // 8
            pairs.append(pair[:, :, top : top + self.crop // 8, left : left + self.crop // 8].float())
        images = torch.stack(wide).float() / 255
        lr = self.degradation(images, keyed_generator(self.seed, step, 1 << 20))
        lr_up = bicubic(lr, (images.shape[-2], images.shape[-1]))  # the kernel of inference
        inner = slice(self.MARGIN, -self.MARGIN)
        z_0, eps = torch.stack(pairs).unbind(1)
        return images[..., inner, inner], lr_up[..., inner, inner], z_0, eps


class Ahead(Generic[T]):
    """Batches of steps, the next one made in a thread while this one is trained on.

    What a batch holds depends on its step alone, so nothing changes but the time.
    """

    def __init__(self, batches: Callable[[int], T]):
        self.batches, self.pool = batches, ThreadPoolExecutor(1)
        self.coming: dict[int, Future[T]] = {}

    def __call__(self, step: int) -> T:
        this = self.coming.pop(step, None)
        self.coming = {step + 1: self.pool.submit(self.batches, step + 1)}
        return self.batches(step) if this is None else this.result()
