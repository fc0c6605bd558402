"""Animations and files of several pages: their pictures, one at a time, for the same work as a still picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from fluxsr.imaging.decode import decode_frames
from fluxsr.imaging.formats import Format
from fluxsr.imaging.formats.tiff import SEVERAL
from fluxsr.imaging.picture import Picture, picture_of
from fluxsr.imaging.raster import Frame
from fluxsr.options import UpscaleOptions


def count(picture: Picture, form: Format, options: UpscaleOptions) -> int:
    """Return how many frames or pages of a file an output of this format gets. Animations hold no pages."""
    held = form.frames and (picture.format != "TIFF" or form.name == "TIFF")
    return picture.frame.count if held and not options.first_frame else 1


def of(picture: Picture, form: Format, options: UpscaleOptions) -> Iterator[Picture]:
    """Yield the pictures of a file that go into an output of this format, each with the mask of the first.

    Frames of an animation are composed to full pictures, with equal size and channels.

    Args:
        picture: the first one, from ``io.read``. The others are read anew, so the file must still be there.
        form: format of the output.
        options: say whether only the first one is wanted, and how large one may be.

    Raises:
        InputError: one of them cannot be used.
    """
    if count(picture, form, options) == 1:
        yield replace(picture, frame=Frame())
        return
    animated, (height, width) = picture.format != "TIFF", picture.lr.shape[-2:]
    total, coloured, transparent = _looked_at(picture, options) if animated else (0, False, False)
    for number, raster in enumerate(decode_frames(picture.path, options.max_pixels)):
        if animated:  # a frame of a GIF may be larger than the first one
            raster = replace(raster, pixels=raster.pixels[:height, :width], frame=replace(raster.frame, count=total))
        found = picture_of(raster, picture.path, picture.times)
        if animated:
            alpha = found.alpha if found.alpha is not None else torch.ones(1, 1, height, width)
            found = replace(found, grey=found.grey and not coloured, alpha=alpha if transparent else None)
        else:
            found = replace(found, frame=picture.frame)
        notes = tuple(note for note in (found if number else picture).notes if note != SEVERAL)
        yield replace(found, mask=picture.mask, notes=notes)


def _looked_at(picture: Picture, options: UpscaleOptions) -> tuple[int, bool, bool]:
    """Return the number of frames, and whether any has colours or is transparent, which all must then have."""
    total, coloured, transparent = 0, False, False
    for raster in decode_frames(picture.path, options.max_pixels):
        total, channels = total + 1, raster.pixels.shape[-1]
        coloured |= channels > 2
        whole = np.iinfo(raster.pixels.dtype).max
        transparent |= channels in (2, 4) and bool((raster.pixels[..., -1] < whole).any())
    return total, coloured, transparent
