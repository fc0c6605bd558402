"""Training crops of photographs, which are decoded once and kept in memory as 8-bit tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fluxsr.errors import InputError
from fluxsr.imaging.resize import bicubic
from fluxsr.keyed import keyed_generator

T = TypeVar("T")

# Purpose of a random draw, the last part of its key. 0 is not usable, because SeedSequence pads keys with zeros.
TIME, NOISE, SPOIL, CROP, SCALE, DEGRADE = 1, 2, 3, 4, 6, 1 << 20


def sample_generators(seed: int, step: int, samples: Sequence[int], purpose: int) -> list[torch.Generator]:
    """Return one generator per sample, so that its draws do not depend on the rest of the batch or on the process."""
    return [keyed_generator(seed, step, sample, purpose) for sample in samples]


def normals(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Return Gaussian noise (B, *shape), with each sample drawn from its own generator."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])


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


class Shared(Sequence[Tensor]):
    """Sequence of tensors of one dtype in shared memory, so that other processes use them without a copy.

    All tensors share one block, because every block costs each process a file descriptor.

    Raises:
        InputError: the system has too little shared memory.
    """

    def __init__(self, tensors: Sequence[Tensor]):
        self.shapes = [tensor.shape for tensor in tensors]
        self.ends = list(accumulate(tensor.numel() for tensor in tensors))
        try:
            self.block = torch.empty(self.ends[-1], dtype=tensors[0].dtype).share_memory_()
        except RuntimeError as error:
            size = self.ends[-1] * tensors[0].element_size() / 1e9
            raise InputError(
                f"{size:.1f} GB of photographs do not fit in shared memory (/dev/shm); enlarge it (docker run "
                "--shm-size) or set run.workers: 0"
            ) from error
        for index, tensor in enumerate(tensors):
            self[index].copy_(tensor)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: Any) -> Any:
        shape, end = self.shapes[index], self.ends[index]
        return self.block[end - shape.numel() : end].view(shape)


class PairCrops:
    """Crops of teacher pairs: the photograph x_0, a newly degraded LR image, its latent z_0 and the teacher's eps.

    Crops start at multiples of 16 pixels, so that pixels and latents stay aligned. The degradation sees a margin
    around the crop, so that blur has no border effect inside it; z_0 is cropped from the latent of the whole image
    for the same reason. The degradation is drawn for fixed groups of ``group`` consecutive samples, which share
    resize factors. A group is always degraded as a whole, so that the result does not depend on the number of
    processes; a micro-batch smaller than a group discards the other samples.
    """

    MARGIN = 16  # pixels

    def __init__(
        self,
        photos: list[Tensor],
        latents: list[Tensor],
        crop: int,
        seed: int,
        degradation: Callable[[Tensor, Sequence[torch.Generator]], Tensor],
        group: int = 2,
        device: torch.device | None = None,
        pixels: int = 8,
    ):
        """Store photographs and latents.

        Args:
            photos: photographs (3,H,W), uint8.
            latents: z_0 and eps of each photograph, (2,C,h,w).
            degradation: function from HR to LR on ``device``, with one generator per group (``degrade_samples``).
            pixels: side of a latent in pixels.

        Raises:
            InputError: a crop or group size that does not fit.
        """
        if 16 % pixels:
            raise InputError(
                f"a latent is {pixels} pixels wide; crops start at multiples of 16, so use an autoencoder of 16 or less"
            )
        token = max(16, 2 * pixels)
        if crop % token or crop + 2 * self.MARGIN > min(min(photo.shape[1:]) for photo in photos):
            raise InputError(
                f"run.crop is {crop}; it must be a multiple of {token} and fit the photographs with a margin of "
                f"{self.MARGIN} pixels"
            )
        if group < 1:
            raise InputError(f"degradation_group is {group}; it must be at least 1")
        self.photos: Sequence[Tensor] = photos
        self.latents: Sequence[Tensor] = latents
        self.crop, self.seed = crop, seed
        self.degradation, self.group, self.device = degradation, group, device or torch.device("cpu")
        self.pixels = pixels

    def __call__(self, step: int, samples: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (x_0, lr_up, z_0, eps): two images (B,3,n,n), RGB in [0,1], and two latents."""
        groups = {first: self._group(step, first) for first in {s - s % self.group for s in samples}}
        rows = [[part[s % self.group] for part in groups[s - s % self.group]] for s in samples]
        x_0, lr_up, pairs = (torch.stack(column) for column in zip(*rows, strict=True))
        return x_0, lr_up, pairs[:, 0], pairs[:, 1]

    def share_memory(self) -> None:
        """Move photographs and latents into shared memory."""
        self.photos, self.latents = Shared(self.photos), Shared(self.latents)

    def _group(self, step: int, first: int) -> tuple[Tensor, Tensor, Tensor]:
        cut = [self._cut(keyed_generator(self.seed, step, first + k)) for k in range(self.group)]
        images = torch.stack([wide for wide, _ in cut]).to(self.device).float() / 255
        # The loop's autocast would be active here if the batch is prepared in the main thread.
        with torch.autocast(self.device.type, enabled=False):
            lr = self.degradation(images, [keyed_generator(self.seed, step, first, DEGRADE)])
            lr_up = bicubic(lr, (images.shape[-2], images.shape[-1]))  # the kernel of inference
        inner = slice(self.MARGIN, -self.MARGIN)
        return images[..., inner, inner], lr_up[..., inner, inner], torch.stack([pair for _, pair in cut])

    def _cut(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a crop with its margin, uint8, and its z_0 and eps (2,C,h,w)."""
        index, y, x = torch.rand(3, generator=generator).tolist()
        photo, pair = (images[int(index * len(self.photos))] for images in (self.photos, self.latents))
        side = self.crop + 2 * self.MARGIN
        top, left = (16 * int(r * ((n - side) // 16 + 1)) for r, n in zip((y, x), photo.shape[1:], strict=True))
        wide = photo[:, top : top + side, left : left + side]
        top, left, side = ((n + self.MARGIN) // self.pixels for n in (top, left, self.crop - self.MARGIN))
        return wide, pair[:, :, top : top + side, left : left + side].float()


class Ahead(Generic[T]):
    """Prepare the batch of the next step in a thread while the current step trains.

    A batch depends only on its step and samples, so reading ahead does not change it.
    """

    def __init__(self, batches: Callable[[int, Sequence[int]], T]):
        self.batches, self.pool = batches, ThreadPoolExecutor(1)
        self.coming: dict[tuple[int, tuple[int, ...]], Future[T]] = {}

    def __call__(self, step: int, samples: Sequence[int]) -> T:
        share = tuple(samples)
        this = self.coming.pop((step, share), None)
        self.coming = {key: batch for key, batch in self.coming.items() if key[0] >= step}
        batch = self.batches(step, share) if this is None else this.result()
        self.coming[step + 1, share] = self.pool.submit(self.batches, step + 1, share)
        return batch


class _Steps(Dataset[T]):
    """Batches of one micro-batch's samples for every step, starting at step ``first``."""

    def __init__(self, batches: Callable[[int, Sequence[int]], T], share: tuple[int, ...], first: int):
        self.batches, self.share, self.first = batches, share, first

    def __len__(self) -> int:
        return sys.maxsize  # endless, but the sampler needs a number

    def __getitem__(self, index: int) -> T:
        return self.batches(self.first + index, self.share)


class AheadInProcesses(Generic[T]):
    """Prepare batches in ``workers`` single-threaded processes, for a device that is faster than its host.

    The processes are spawned, because forking a process that runs PyTorch threads may hang. ``batches`` must
    therefore be picklable and keep large tensors in shared memory, as ``PairCrops.share_memory`` does. Every
    micro-batch of a step has its own ``workers`` processes.
    """

    def __init__(self, batches: Callable[[int, Sequence[int]], T], workers: int, pin_memory: bool = False):
        self.batches, self.workers, self.pin_memory = batches, workers, pin_memory
        self.coming: dict[tuple[int, ...], tuple[int, Iterator[T]]] = {}

    def __call__(self, step: int, samples: Sequence[int]) -> T:
        share = tuple(samples)
        following, coming = self.coming.get(share, (None, None))
        if coming is None or following != step:
            steps = _Steps(self.batches, share, step)
            loader = DataLoader(
                steps, None, num_workers=self.workers, multiprocessing_context="spawn", pin_memory=self.pin_memory
            )
            coming = iter(loader)
        batch = next(coming)
        self.coming[share] = (step + 1, coming)
        return batch
