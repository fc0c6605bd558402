"""Pictures as the pipeline takes them; convert results back to the source's colour profile and bit depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fluxsr.imaging.color import profiles
from fluxsr.imaging.extended import Extended
from fluxsr.imaging.formats import Format
from fluxsr.imaging.metadata.provenance import marked
from fluxsr.imaging.metadata.transfer import carry_over, too_long
from fluxsr.imaging.raster import Change, Frame, ImageSpec, Metadata, Raster
from fluxsr.imaging.resize import bicubic_rows
from fluxsr.options import UpscaleOptions


@dataclass(frozen=True)
class Picture:
    """A decoded input image, ready for the pipeline. Attributes that are not listed are those of Raster.

    Attributes:
        lr: sRGB, upright, (1,3,h,w), float32 in [0,1]; transparent pixels have the colours of their neighbours.
        out_of_gamut: original colours minus lr, (1,3,h,w); None if all colours lie inside sRGB.
        alpha: (1,1,h,w) in [0,1], or None.
        grey: whether there is a single colour channel.
        sixteen: whether the file has more than 8 bits per channel.
        profile, colors: as in Raster, but the profile is invertible or empty; then colors states at most sRGB.
        times: (last access, last change) of the file, in ns.
        mask: see imaging/mask.py, (1,1,h,w) in [0,1] of any size, or None.
    """

    lr: Tensor
    out_of_gamut: Tensor | None
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
    frame: Frame = Frame()
    mask: Tensor | None = None

    @property
    def image(self) -> Image.Image:
        """The picture as 8-bit sRGB; transparency is composited over white."""
        colours = self.lr if self.alpha is None else over_white(self.lr, self.alpha)
        return Image.fromarray(_quantized(_rows(colours), False))


def picture_of(raster: Raster, path: Path, times: tuple[int, int] | None = None) -> Picture:
    """Convert a raster to sRGB, with transparency and out-of-gamut colours kept apart."""
    pixels, notes = raster.pixels, list(raster.notes)
    maximum = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    values = pixels.astype(np.float32) / np.float32(maximum)
    transparent = values.shape[-1] in (2, 4)
    colours, alpha = (values[..., :-1], _planes(values[..., -1:])) if transparent else (values, None)
    profile = raster.profile
    if profile:
        colours, profile, more = _to_srgb(colours, profile)
        notes += more
    lr = _planes(colours).expand(-1, 3, -1, -1)
    lr = lr if alpha is None else bleed_alpha(lr, alpha)
    reach = max(-float(lr.min()), float(lr.max()) - 1)  # distance outside sRGB; 0 without a profile
    inside = lr.clamp(0, 1) if reach > 0 else lr  # avoid a needless copy of a large image
    return Picture(
        lr=inside.contiguous(),
        out_of_gamut=lr - inside if reach > 0.1 / 255 and values.shape[-1] >= 3 else None,
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
        frame=raster.frame,
    )


def _to_srgb(colours: np.ndarray, profile: bytes) -> tuple[np.ndarray, bytes, list[str]]:
    """Return colours (H,W,C) in sRGB, the profile to convert back to, and notes."""
    if colours.shape[-1] == 3 and profiles.is_srgb(profile):
        return colours, profile, []
    converted = profiles.to_srgb(colours, profile)
    if converted is None:
        return colours, b"", ["has an ICC profile that is damaged or does not match its channels; sRGB is assumed"]
    if not profiles.usable(profile, colours.shape[-1]):
        return converted, b"", ["has an ICC profile that cannot be inverted; the output is sRGB"]
    return converted, profile, []


def spec_of(
    picture: Picture,
    form: Format,
    size: tuple[int, int],
    options: UpscaleOptions,
    made: Mapping[str, str] | None = None,
) -> tuple[ImageSpec, list[str]]:
    """Return the specification of an output file of this size (height, width), and notes on what it cannot store.

    ``made`` is the statement of what made the output, which ``marked`` writes.
    """
    height, width = size
    old = picture.lr.shape[-1], picture.lr.shape[-2]
    to_srgb = options.profile == "srgb" and bool(picture.profile)
    kept, notes = carry_over(picture.metadata, form, Change(old, (width, height), to_srgb=to_srgb), options.strip)
    if made and options.provenance:
        with_mark = marked(kept, form, made)
        if too_long(with_mark, form):
            notes.append("its XMP leaves no room in a JPEG to say what made the output")
        else:
            kept = with_mark
    keep = options.profile == "keep" and form.icc
    if picture.alpha is not None and not form.alpha:
        notes.append(f"its transparency is laid over white: {form.name} cannot store it")
    if form.palette and not (picture.grey and picture.alpha is None):
        notes.append(f"its colours become 256, and its transparency is on or off: {form.name} has no more")
    if picture.frame.milliseconds and form.name == "TIFF":
        notes.append("its times and loops are dropped: TIFF cannot store them")
    if form.palette and picture.frame.milliseconds % 10:
        notes.append(f"its times are rounded to 0.01 s: {form.name} has no others")
    if picture.sixteen and not form.sixteen:
        notes.append(f"its 16 bits per channel become 8: {form.name} has no more")
    if picture.out_of_gamut is not None and not keep:
        share = (picture.out_of_gamut.abs().amax(1) > 0.5 / 255).float().mean()
        notes.append(f"{float(share):.1%} of its pixels have colours outside sRGB, which are clipped")
    colours = 1 if picture.grey and form.grey else 3
    profile = picture.profile if keep and not (picture.grey and colours == 3) else b""
    return ImageSpec(
        width=width,
        height=height,
        channels=colours + (picture.alpha is not None and form.alpha),
        sixteen=picture.sixteen and form.sixteen,
        profile=profile,
        metadata=kept,
        colors=picture.colors if profile == picture.profile else (),
        frame=picture.frame,
    ), notes


def rows_of(picture: Picture, spec: ImageSpec, hr: Tensor, first: int, wrap: bool = False) -> np.ndarray:
    """Convert upscaled rows to the pixels of the output file, (rows,W,C), uint8 or uint16.

    Args:
        picture: the input. Its alpha and out-of-gamut colours bypass the model and are added here.
        spec: see ``spec_of``.
        hr: upscaled rows, (1,3,rows,W), float32, about [0,1]. Overwritten.
        first: number of the topmost row.
        wrap: whether opposite edges continue each other.
    """

    def enlarged(planes: Tensor) -> Tensor:
        extended = Extended(planes, (spec.height, spec.width), wrap)
        (top, left), last = extended.margins, first + hr.shape[-2]
        rows = bicubic_rows(extended.image, extended.size, top + first, top + last)
        return rows[..., left : left + spec.width]

    colours = hr.clamp_(0, 1)
    if picture.grey:
        colours = colours.mean(1, keepdim=True)
    if picture.out_of_gamut is not None and spec.profile:
        colours = colours + enlarged(picture.out_of_gamut)
    values = _rows(colours)
    if spec.profile and not (values.shape[-1] == 3 and profiles.is_srgb(spec.profile)):
        back = profiles.from_srgb(values, spec.profile)
        assert back is not None  # the profile was tested when the file was read
        values = _neutral_again(back, values)
    if picture.alpha is not None:
        alpha = _rows(enlarged(picture.alpha).clamp_(0, 1))
        with_alpha = spec.channels in (2, 4)
        values = np.concatenate([values, alpha], -1) if with_alpha else values * alpha + (1 - alpha)
    if values.shape[-1] < spec.channels:  # grey, in a format without a grey mode
        values = np.concatenate([values[..., :1]] * 3 + [values[..., 1:]], -1)
    return _quantized(values, spec.sixteen)


def bleed_alpha(colours: Tensor, alpha: Tensor) -> Tensor:
    """Return colours (1,C,H,W) whose fully transparent pixels have the colour of the nearest visible ones.

    The colours that a file stores under transparent pixels are arbitrary, mostly black. A model or a filter that sees
    both sides of an edge would turn them into a dark fringe. Premultiplied colours are averaged over growing squares
    until every square holds a visible pixel. ``alpha`` is (1,1,H,W) in [0,1].
    """
    if (alpha > 0).all() or not (alpha > 0).any():
        return colours
    return torch.where(alpha > 0, colours, _spread(colours * alpha, alpha))


def _spread(weighted: Tensor, weight: Tensor) -> Tensor:
    """Return weighted / weight; where the weight is 0, that of the smallest enclosing square with any weight."""
    height, width = weight.shape[-2:]
    known = weight > 0
    if known.all():
        return weighted / weight
    padded = [F.pad(planes, (0, width % 2, 0, height % 2)) for planes in (weighted, weight)]
    coarse = _spread(*(F.avg_pool2d(planes, 2) for planes in padded))
    around = F.interpolate(coarse, scale_factor=2, mode="nearest")[..., :height, :width]
    return torch.where(known, weighted / weight.clamp(min=1e-12), around)


def over_white(colours: Tensor, alpha: Tensor) -> Tensor:
    """Composite colours over white."""
    return colours * alpha + (1 - alpha)


def _neutral_again(converted: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Remove the rounding error that a conversion adds to exactly neutral pixels, (rows,W,C)."""
    if converted.shape[-1] != 3 or neutral.shape[-1] != 3:
        return converted
    mean = converted.mean(-1, keepdims=True)
    rounded = np.abs(converted - mean).max(-1, keepdims=True) < 0.5 / 255  # neutral is R = G = B in the profile, too
    return np.where((neutral == neutral[..., :1]).all(-1, keepdims=True) & rounded, mean, converted)


def _planes(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0), dtype=np.float32))[None]  # (1,C,H,W)


def _rows(planes: Tensor) -> np.ndarray:
    return np.moveaxis(planes[0].numpy(), 0, -1)  # (H,W,C)


def _quantized(values: np.ndarray, sixteen: bool) -> np.ndarray:
    maximum, dtype = (65535, np.uint16) if sixteen else (255, np.uint8)
    return (values * np.float32(maximum)).round().clip(0, maximum).astype(dtype)
