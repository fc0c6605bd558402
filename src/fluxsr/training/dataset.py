"""Crops to train on, by keyed randomness: photographs, or teacher pairs with their LR partners."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.photographs import read_photographs
from fluxsr.imaging.resize import bicubic
from fluxsr.keyed import keyed_generator

T = TypeVar("T")

__all__ = ["Ahead", "PairCrops", "PhotoCrops", "keyed_generator", "read_photographs"]


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
