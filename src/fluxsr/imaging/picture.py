"""A photograph as the pipeline takes it, and the way of the enlarged one back into the photograph's own terms."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fluxsr.imaging import metadata, profiles
from fluxsr.imaging.alpha import filled, over_white
from fluxsr.imaging.change import Change
from fluxsr.imaging.encode import Sheet
from fluxsr.imaging.formats import Format
from fluxsr.imaging.raster import Metadata, Raster
from fluxsr.imaging.resize import bicubic_rows
from fluxsr.options import Profile, Strip


@dataclass(frozen=True)
class OutputOptions:
    """How a picture is written; the meanings are those of ``fluxsr.options.UpscaleOptions``."""

    quality: int | None = None
    lossless: bool | None = None
    profile: Profile = "keep"
    strip: Strip = "none"


@dataclass(frozen=True)
class Picture:
    """A photograph.

    Attributes:
        lr: sRGB, upright, (1,3,h,w), float32 in [0,1]; transparent pixels have their neighbours' colours.
        beyond: what of the colours lies outside sRGB, to be added to lr, (1,3,h,w); None where nothing does.
        alpha: (1,1,h,w) in [0,1], or None.
        grey: whether it has one channel of colour.
        sixteen: whether it has more than 8 bit.
        format, profile, metadata, lossless, notes, colors: of the file; see Raster. The profile is one that can be
            gone back to, or empty; then colors is empty, too, unless it says sRGB.
        path: of the file.
        times: of the file: last access and last change, in ns.
    """

    lr: Tensor
    beyond: Tensor | None
    alpha: Tensor | None
    grey: bool
    sixteen: bool
    format: str
    path: Path
    profile: bytes = b""
    metadata: Metadata = field(default_factory=Metadata)
    lossless: bool = True
    notes: tuple[str, ...] = ()
    times: tuple[int, int] | None = None
    colors: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def image(self) -> Image.Image:
        """As 8-bit sRGB; transparency is laid over white."""
        colours = self.lr if self.alpha is None else over_white(self.lr, self.alpha)
        return Image.fromarray(_quantized(_rows(colours), False))


def picture_of(raster: Raster, path: Path, times: tuple[int, int] | None = None) -> Picture:
    """A raster's colours taken to sRGB, its transparency apart."""
    pixels, notes = raster.pixels, list(raster.notes)
    whole = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    values = pixels.astype(np.float32) / np.float32(whole)
    transparent = values.shape[-1] in (2, 4)
    colours, alpha = (values[..., :-1], _planes(values[..., -1:])) if transparent else (values, None)
    profile = raster.profile
    if profile:
        colours, profile, told = _managed(colours, profile)
        notes += told
    lr = _planes(colours).expand(-1, 3, -1, -1)
    lr = lr if alpha is None else filled(lr, alpha)
    reach = max(-float(lr.min()), float(lr.max()) - 1)  # outside sRGB; without a profile there is none
    inside = lr.clamp(0, 1) if reach > 0 else lr  # no copy of a large picture for nothing
    return Picture(
        lr=inside.contiguous(),
        beyond=lr - inside if reach > 0.1 / 255 and values.shape[-1] >= 3 else None,
        alpha=alpha,
        grey=values.shape[-1] <= 2,
        sixteen=pixels.dtype != np.uint8,
        format=raster.format,
        path=path,
        profile=profile,
        metadata=raster.metadata,
        lossless=raster.lossless,
        notes=tuple(notes),
        times=times,
        colors=raster.colors if profile == raster.profile else (),
    )


def _managed(colours: np.ndarray, profile: bytes) -> tuple[np.ndarray, bytes, list[str]]:
    """Colours (H,W,C) in sRGB, the profile to go back to, and notes."""
    if colours.shape[-1] == 3 and profiles.is_srgb(profile):
        return colours, profile, []
    converted = profiles.to_srgb(colours, profile)
    if converted is None:
        return colours, b"", ["has an ICC profile that is broken or does not fit; its colours are taken for sRGB"]
    if not profiles.usable(profile, colours.shape[-1]):
        return converted, b"", ["has an ICC profile that leads one way only; the output is sRGB"]
    return converted, profile, []


def sheet_of(picture: Picture, form: Format, size: tuple[int, int], delivery: OutputOptions) -> tuple[Sheet, list[str]]:
    """What the output file will hold, and notes on what it will not.

    Args:
        picture: the input.
        form: the output's format.
        size: the output's (height, width).
        delivery: what was asked for.
    """
    height, width = size
    old = picture.lr.shape[-1], picture.lr.shape[-2]
    to_srgb = delivery.profile == "srgb" and bool(picture.profile)
    kept, notes = metadata.carried(
        picture.metadata, form, Change(old, (width, height), to_srgb=to_srgb), delivery.strip
    )
    keep = delivery.profile == "keep" and form.icc
    if picture.alpha is not None and not form.alpha:
        notes.append(f"its transparency is laid over white: {form.name} has none")
    if picture.sixteen and not form.sixteen:
        notes.append(f"its 16 bit become 8: {form.name} has no more")
    if picture.beyond is not None and not keep:
        share = (picture.beyond.abs().amax(1) > 0.5 / 255).float().mean()
        notes.append(f"{float(share):.1%} of its pixels have colours outside sRGB, which are clipped")
    colours = 1 if picture.grey and form.grey else 3
    profile = picture.profile if keep and not (picture.grey and colours == 3) else b""
    return Sheet(
        width=width,
        height=height,
        channels=colours + (picture.alpha is not None and form.alpha),
        sixteen=picture.sixteen and form.sixteen,
        profile=profile,
        metadata=kept,
        colors=picture.colors if profile == picture.profile else (),
    ), notes


def rows_of(picture: Picture, sheet: Sheet, hr: Tensor, first: int) -> np.ndarray:
    """Rows of the output file.

    Args:
        picture: the input, for what goes around the model: alpha, and colours outside sRGB.
        sheet: of ``sheet_of``.
        hr: the enlarged rows, (1,3,rows,W), float32, about [0,1]. Overwritten.
        first: number of the topmost.

    Returns:
        (rows,W,C), uint8 or uint16.
    """
    part = (sheet.height, sheet.width), first, first + hr.shape[-2]
    colours = hr.clamp_(0, 1)
    if picture.grey:
        colours = colours.mean(1, keepdim=True)
    if picture.beyond is not None and sheet.profile:
        colours = colours + bicubic_rows(picture.beyond, *part)
    values = _rows(colours)
    if sheet.profile and not (values.shape[-1] == 3 and profiles.is_srgb(sheet.profile)):
        back = profiles.from_srgb(values, sheet.profile)
        assert back is not None  # the profile was tried when the picture was read
        values = _neutral_again(back, values)
    if picture.alpha is not None:
        alpha = _rows(bicubic_rows(picture.alpha, *part).clamp_(0, 1))
        with_alpha = sheet.channels in (2, 4)
        values = np.concatenate([values, alpha], -1) if with_alpha else values * alpha + (1 - alpha)
    if values.shape[-1] < sheet.channels:  # grey in a format without it
        values = np.concatenate([values[..., :1]] * 3 + [values[..., 1:]], -1)
    return _quantized(values, sheet.sixteen)


def _neutral_again(converted: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Colours (rows,W,C) without the rounding that a conversion adds to pixels that were exactly neutral."""
    if converted.shape[-1] != 3 or neutral.shape[-1] != 3:
        return converted
    mean = converted.mean(-1, keepdims=True)
    rounded = np.abs(converted - mean).max(-1, keepdims=True) < 0.5 / 255  # in the profile, too, neutral is R = G = B
    return np.where((neutral == neutral[..., :1]).all(-1, keepdims=True) & rounded, mean, converted)


def _planes(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0), dtype=np.float32))[None]  # (1,C,H,W)


def _rows(planes: Tensor) -> np.ndarray:
    return np.moveaxis(planes[0].numpy(), 0, -1)  # (H,W,C)


def _quantized(values: np.ndarray, sixteen: bool) -> np.ndarray:
    whole, dtype = (65535, np.uint16) if sixteen else (255, np.uint8)
    return (values * np.float32(whole)).round().clip(0, whole).astype(dtype)
