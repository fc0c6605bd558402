"""Crops to train on, by keyed randomness: photographs, or teacher pairs with their LR partners."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.photographs import read_photographs
from fluxsr.imaging.resize import bicubic
from fluxsr.keyed import keyed_generator

__all__ = ["PairCrops", "PhotoCrops", "keyed_generator", "read_photographs"]


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
    """Crops of teacher pairs: the photograph x_0, its LR partner drawn afresh, and the teacher's eps.

    A crop starts on the grid of tokens, so that pixels and noise belong together. The degradation sees a
    margin around the crop, so that blur has no border inside it.
    """

    MARGIN = 16  # pixels

    def __init__(
        self,
        photos: list[Tensor],
        eps: list[Tensor],
        crop: int,
        batch: int,
        seed: int,
        degradation: Callable[[Tensor, torch.Generator], Tensor],
    ):
        """``photos``: (3,H,W) uint8; ``eps``: (C,H/8,W/8) of the same photographs; ``degradation``: HR -> LR, x4."""
        if crop % 16 or crop + 2 * self.MARGIN > min(min(photo.shape[1:]) for photo in photos):
            raise InputError(f"run.crop is {crop}; it must be a multiple of 16 and fit the photographs with a margin")
        self.photos, self.eps, self.crop, self.batch, self.seed = photos, eps, crop, batch, seed
        self.degradation = degradation

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """(x_0, lr_up, eps) of one step: (B,3,n,n) twice, RGB in [0,1], and (B,C,n/8,n/8)."""
        wide, noise = [], []
        for sample in range(self.batch):
            generator = keyed_generator(self.seed, step, sample)
            index, y, x = torch.rand(3, generator=generator).tolist()
            photo, eps = (images[int(index * len(self.photos))] for images in (self.photos, self.eps))
            side = self.crop + 2 * self.MARGIN
            top, left = (16 * int(r * ((n - side) // 16 + 1)) for r, n in zip((y, x), photo.shape[1:], strict=True))
            wide.append(photo[:, top : top + side, left : left + side])
            top, left = (top + self.MARGIN) // 8, (left + self.MARGIN) // 8
            noise.append(eps[:, top : top + self.crop // 8, left : left + self.crop // 8].float())
        images = torch.stack(wide).float() / 255
        lr = self.degradation(images, keyed_generator(self.seed, step, 1 << 20))
        lr_up = bicubic(lr, (images.shape[-2], images.shape[-1]))  # the kernel of inference
        inner = slice(self.MARGIN, -self.MARGIN)
        return images[..., inner, inner], lr_up[..., inner, inner], torch.stack(noise)
