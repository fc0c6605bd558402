"""Folders and tar shards of photographs: list them with their sizes, and read them one by one or all at once."""

from __future__ import annotations

import glob
import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fluxsr.errors import InputError
from fluxsr.imaging.listing import hidden_part, images_below

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"}


@dataclass
class DataConfig:
    """Sources of photographs."""

    shards: list[str] = field(default_factory=list)  # tar shards, folders or image files; globs allowed
    validation: list[str] = field(default_factory=list)
    limit: int = 0  # number of photographs to use; 0 uses all
    validation_limit: int = 0  # the same for validation


@dataclass(frozen=True)
class Photograph:
    """A file, or a member of a tar, that has not been read yet.

    Attributes:
        name: unique name: the file name without its suffix, numbered if it occurs again.
        path: image file or tar.
        offset, length: byte range of the member in the tar; length 0 means the whole file.
    """

    name: str
    path: Path
    offset: int = 0
    length: int = 0

    def size(self) -> tuple[int, int]:
        """Return (height, width) from the header, without decoding pixels."""
        with self._opened() as image:
            return image.height, image.width

    def read(self) -> Tensor:
        """Decode the photograph, (3,H,W) uint8; raise an InputError if that is impossible."""
        with self._opened() as image:
            return torch.from_numpy(np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy())

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.length or -1)
        try:
            with Image.open(io.BytesIO(data)) as image:
                yield image
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            what = f"{self.name} of {self.path}"
            raise InputError(f"cannot read photograph {what}: {error}; remove it from data.shards") from error


def list_photographs(sources: Sequence[str], limit: int = 0) -> list[Photograph]:
    """Return all photographs in tar shards, folders and files, in order; none is decoded, and hidden ones are left out.

    A source that does not exist or holds no image raises an InputError.
    """
    found: list[Photograph] = []
    seen: Counter[str] = Counter()
    for source in sources:
        paths, before = sorted(glob.glob(source)), len(found)
        if not paths:
            raise InputError(f"no such photographs: {source}; set data.shards to tar shards or folders")
        for path in paths:
            for name, file, offset, length in _members(Path(path)):
                seen[name] += 1  # names may repeat across folders, but pairs are found by name
                name = name if seen[name] == 1 else f"{name}~{seen[name]}"
                found.append(Photograph(name, file, offset, length))
                if limit and len(found) == limit:
                    return found
        if len(found) == before:
            raise InputError(
                f"no image found in {source}; known are {', '.join(sorted(IMAGE_SUFFIXES))}, in .tar or bare"
            )
    if not found:
        raise InputError("no photographs given; set data.shards (and data.validation) to tar shards or folders")
    return found


def read_photographs(sources: Sequence[str], limit: int = 0) -> tuple[list[str], list[Tensor]]:
    """Return unique names and images (3,H,W) uint8 of all photographs in tar shards, folders and files."""
    photographs = list_photographs(sources, limit)
    return [photo.name for photo in photographs], [photo.read() for photo in photographs]


def _members(path: Path) -> Iterator[tuple[str, Path, int, int]]:
    if path.suffix == ".tar":
        try:
            with tarfile.open(path, "r:") as tar:  # uncompressed tars only: members are read by their offset
                for member in tar:
                    image = Path(member.name).suffix.lower() in IMAGE_SUFFIXES
                    if member.isfile() and image and not hidden_part(member.name):
                        yield Path(member.name).stem, path, member.offset_data, member.size
        except tarfile.TarError as error:
            raise InputError(f"cannot read {path}: {error}; data.shards takes plain .tar files") from error
    else:
        files = images_below(path, IMAGE_SUFFIXES) if path.is_dir() else [path]
        for file in files:
            if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
                yield file.stem, file, 0, 0


def whole_tokens(photo: Tensor) -> Tensor:
    """Crop a photograph (3,H,W) to sides that are multiples of 16, as the autoencoder and token packing need."""
    height, width = (side // 16 * 16 for side in photo.shape[1:])
    return photo[:, :height, :width]
