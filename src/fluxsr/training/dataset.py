"""Training crops of photographs, which are decoded once and kept as 8-bit tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.resize import bicubic
from fluxsr.keyed import keyed_generator
from fluxsr.training.targets import Targets

# Purpose of a random draw, the last part of its key. 0 is not usable, because SeedSequence pads keys with zeros.
TIME, NOISE, CROP, SCALE, SLOT, ORDER, FILE_ORDER, DEGRADE = 1, 2, 4, 6, 7, 8, 9, 1 << 20


def sample_generators(seed: int, step: int, samples: Sequence[int], purpose: int) -> list[torch.Generator]:
    """Return one generator per sample, so that its draws do not depend on the rest of the batch or on the process."""
    return [keyed_generator(seed, step, sample, purpose) for sample in samples]


def normals(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Return Gaussian noise (B, *shape), with each sample drawn from its own generator."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


@lru_cache(maxsize=8)
def keyed_order(count: int, *key: int) -> tuple[int, ...]:
    """Return a random order of ``count`` things that depends only on the integers of the key."""
    return tuple(torch.randperm(count, generator=keyed_generator(*key)).tolist())


def turned(images: Sequence[Tensor], flip: float, turn: float) -> list[Tensor]:
    """Mirror images (3,n,n) for ``flip`` below 0.5 and rotate them by whole quarters of ``turn``, all alike."""
    mirrored = [image.flip(2) if flip < 0.5 else image for image in images]
    return [image.rot90(int(4 * turn), (1, 2)) for image in mirrored]


class PhotoCrops:
    """Random crops of photographs; the same step and sample always give the same crop."""

    def __init__(self, images: list[Tensor], crop: int, seed: int):
        self.images = [image for image in images if min(image.shape[1:]) >= crop]
        if not self.images:
            raise InputError(f"no photograph is as large as the crop of {crop} pixels; lower run.crop")
        self.crop, self.seed = crop, seed

    def __call__(self, step: int, samples: Sequence[int]) -> Tensor:
        """Return the crops (B,3,crop,crop) of some samples of a step, RGB in [0,1]."""
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
    """Crops of targets: the image x_0, its LR image, enlarged, and the latents z_0 and eps of a teacher pair.

    There are three kinds of targets:

    - Teacher pairs have ``latents``. Their crops start at multiples of 16 pixels, so that pixels and latents stay
      aligned; z_0 is cropped from the latent of the whole image. They are neither mirrored nor rotated, because the
      mirrored latent is not the latent of the mirrored image.
    - Photographs without ``latents`` are cropped anywhere, mirrored and rotated.
    - Pairs of files (LR, HR) are cropped at any LR pixel, mirrored and rotated, both images alike.

    The LR image of the first two is a newly degraded crop. The degradation sees a margin around the crop, so that
    blur has no border effect inside it. It is drawn for fixed groups of ``group`` consecutive samples, which share
    resize factors. A group is always degraded as a whole, so that the result does not depend on the number of
    processes; a micro-batch smaller than a group discards the other samples.

    Every target is used once an epoch, in an order that depends only on the seed and the epoch.
    """

    MARGIN = 16  # pixels

    def __init__(
        self,
        targets: Targets,
        crop: int,
        seed: int,
        batch: int,
        degradation: Callable[[Tensor, Sequence[torch.Generator]], Tensor],
        group: int = 2,
        device: torch.device | None = None,
        pixels: int = 8,
        share: float = 0.0,
    ):
        """Store the targets and check that the crop fits them.

        Args:
            batch: number of samples per step.
            degradation: function from HR to LR on ``device``, with one generator per group (``degrade_samples``).
            pixels: side of a latent in pixels.
            share: share of the samples that are pairs of files, 0 to 1.

        Raises:
            InputError: a crop, group size or share that does not fit.
        """
        if 16 % pixels:
            raise InputError(
                f"a latent is {pixels} pixels wide; crops start at multiples of 16, so use an autoencoder of 16 or less"
            )
        token, sides = max(16, 2 * pixels), [min(hr.shape[1:]) for hr in (*targets.photos, *targets.hr)]
        if crop % token or crop + 2 * self.MARGIN > min(sides):
            raise InputError(
                f"run.crop is {crop}; it must be a multiple of {token} and fit the photographs with a margin of "
                f"{self.MARGIN} pixels (the smallest side is {min(sides)})"
            )
        if group < 1:
            raise InputError(f"degradation_group is {group}; it must be at least 1")
        self.name, self.photos, self.latents = targets.name, targets.photos, targets.latents
        self.lr, self.hr = targets.lr, targets.hr
        self.crop, self.seed, self.batch, self.share = crop, seed, batch, share
        self.degradation, self.group, self.device = degradation, group, device or torch.device("cpu")
        self.pixels = pixels

    def __call__(self, step: int, samples: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (x_0, lr_up, z_0, eps): two images (B,3,n,n), RGB in [0,1], and two latents, empty without any."""
        groups = {first: self._group(step, first) for first in {s - s % self.group for s in samples}}
        rows = [[part[s % self.group] for part in groups[s - s % self.group]] for s in samples]
        x_0, lr_up, pairs = (torch.stack(column) for column in zip(*rows, strict=True))
        return x_0, lr_up, pairs[:, 0], pairs[:, 1]

    def targets_seen(self, steps: int) -> dict[str, float]:
        """Return how often every target has been used after a number of steps."""
        files = int(steps * self.batch * self.share)
        counts = {"targets_seen": (steps * self.batch - files, self.photos), "targets_seen/files": (files, self.hr)}
        return {name: round(uses / len(held), 4) for name, (uses, held) in counts.items() if len(held)}

    def _group(self, step: int, first: int) -> tuple[Tensor, Tensor, Tensor]:
        cut = [self._cut(step, sample) for sample in range(first, min(first + self.group, self.batch))]
        images = torch.stack([hr for hr, _, _ in cut]).to(self.device).float() / 255
        given = {row: lr.to(self.device).float() / 255 for row, (_, lr, _) in enumerate(cut) if lr is not None}
        clean = [row for row in range(len(cut)) if row not in given]
        # The loop's autocast would be active here if the batch is prepared in the main thread.
        with torch.autocast(self.device.type, enabled=False):
            if clean:
                lr = self.degradation(images[clean], [keyed_generator(self.seed, step, first, DEGRADE)])
                given |= dict(zip(clean, lr, strict=True))
            lr_up = bicubic(torch.stack([given[row] for row in range(len(cut))]), (images.shape[-2], images.shape[-1]))
        inner = slice(self.MARGIN, -self.MARGIN)
        return images[..., inner, inner], lr_up[..., inner, inner], torch.stack([pair for _, _, pair in cut])

    def _cut(self, step: int, sample: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return a crop with its margin, uint8, its LR crop if that is a file, and its z_0 and eps (2,C,h,w)."""
        # Samples take their places in a random order, so that no kind always meets the same sample of a step.
        place = step * self.batch + keyed_order(self.batch, self.seed, step, 0, SLOT)[sample]
        files_before = int(place * self.share)
        y, x, flip, turn = torch.rand(4, generator=keyed_generator(self.seed, step, sample)).tolist()
        side = self.crop + 2 * self.MARGIN
        if int((place + 1) * self.share) > files_before:
            index = self._target(files_before, len(self.hr), FILE_ORDER)
            low, high = self.lr[index], self.hr[index]
            scale = high.shape[1] // low.shape[1]
            top, left = (int(r * (n - side // scale + 1)) for r, n in zip((y, x), low.shape[1:], strict=True))
            lr, hr = turned(
                (_square(low, top, left, side // scale), _square(high, top * scale, left * scale, side)), flip, turn
            )
            return hr, lr, torch.zeros(2, 0)
        index = self._target(place - files_before, len(self.photos), ORDER)
        grid = 16 if self.latents else 1
        photo = self.photos[index]
        top, left = (grid * int(r * ((n - side) // grid + 1)) for r, n in zip((y, x), photo.shape[1:], strict=True))
        wide = _square(photo, top, left, side)
        if not self.latents:
            (hr,) = turned((wide,), flip, turn)
            return hr, None, torch.zeros(2, 0)
        top, left, side = ((n + self.MARGIN) // self.pixels for n in (top, left, self.crop - self.MARGIN))
        return wide, None, _square(self.latents[index], top, left, side).float()

    def _target(self, number: int, count: int, purpose: int) -> int:
        """Return the target of the ``number``-th sample of one kind, of ``count`` targets."""
        epoch, place = divmod(number, count)
        return keyed_order(count, self.seed, epoch, 0, purpose)[place]


def _square(image: Tensor, top: int, left: int, side: int) -> Tensor:
    return image[..., top : top + side, left : left + side]
