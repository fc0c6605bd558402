"""Make ICC profiles for colours that a file describes by code points or numbers (CICP, gAMA and cHRM of PNG, EXIF).

All other code describes colours by ICC profiles only. The profiles made here hold primaries, a white point and one
curve. The same description always gives the same bytes.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache

import numpy as np

from fluxsr.errors import InputError

Curve = tuple[float, float, float, float, float]
"""(g, a, b, c, d) of ICC's parametric curve 3: linear light is (a x + b)^g from x = d on and c x below."""

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""CIE 1931 x and y of white, red, green and blue."""

SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE: Curve = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_D65, _C = (0.3127, 0.3290), (0.310, 0.316)

# ITU-T H.273. 2 is "unspecified", which means sRGB for still images; so do numbers that are reserved.
SRGB_PRIMARIES: Chromaticities = (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_PRIMARIES: dict[int, Chromaticities] = {
    **dict.fromkeys((1, 2), SRGB_PRIMARIES),
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    **dict.fromkeys((6, 7), (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_CURVES: dict[int, Curve] = {
    **dict.fromkeys((2, 13), SRGB_CURVE),
    **dict.fromkeys((1, 6, 11, 12, 14, 15), _BT709_CURVE),
    4: (2.2, 1, 0, 0, 0),
    5: (2.8, 1, 0, 0, 0),
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0912),
    8: (1, 1, 0, 1, 0),
}
_SLACK = 0.002  # in linear light: tolerance for rounding and compression at the border of a colour space
_HDR = {16: "PQ", 18: "HLG"}
_NAMES = {(9, 13): "BT.2020 primaries, sRGB curve", (12, 13): "Display P3"}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def profile_from_cicp(primaries: int, transfer: int, grey: bool = False) -> bytes:
    """Return the ICC profile of a pair of CICP code points; empty for sRGB.

    Raises:
        InputError: the transfer function is HDR, or the code points are unknown.
    """
    if transfer in _HDR:
        raise InputError(_hdr(_HDR[transfer]))
    primaries = 2 if primaries in (0, 3) or primaries > 22 else primaries
    transfer = 2 if transfer in (0, 3) or transfer > 18 else transfer
    if primaries not in _PRIMARIES or transfer not in _CURVES:
        raise InputError(
            f"has colours that are not supported (CICP primaries {primaries}, transfer {transfer}); convert it to sRGB"
        )
    name = _NAMES.get((primaries, transfer), f"CICP {primaries}/{transfer}")
    return profile_from_primaries(_PRIMARIES[primaries], _CURVES[transfer], grey, name)


def profile_from_primaries(
    chromaticities: Chromaticities, curve: Curve, grey: bool = False, name: str = "RGB"
) -> bytes:
    """Return the ICC profile of primaries and a curve; empty for sRGB and for degenerate primaries."""
    same = grey or max(abs(a - b) for a, b in zip(chromaticities, SRGB_PRIMARIES, strict=True)) < 0.002
    if curve == SRGB_CURVE and same:
        return b""
    return _profile(chromaticities, curve, grey, name)


def profile_from_png(chunks: tuple[tuple[bytes, bytes], ...], grey: bool) -> bytes | None:
    """Return the ICC profile that PNG chunks describe; empty for sRGB, None where they say nothing.

    cICP comes before sRGB, and sRGB before gAMA and cHRM, as the PNG specification asks. Colours of narrow range
    raise an InputError.
    """
    found = dict(chunks)
    if len(cicp := found.get(b"cICP", b"")) == 4:
        if cicp[3] != 1 or cicp[2] != 0:
            raise InputError("has colours that are not supported (cICP of narrow range or YCbCr); convert it to sRGB")
        return profile_from_cicp(cicp[0], cicp[1], grey)
    if b"sRGB" in found:
        return b""
    gamma = int.from_bytes(found.get(b"gAMA", b"")[:4], "big")
    numbers = struct.unpack(">8I", found[b"cHRM"]) if len(found.get(b"cHRM", b"")) == 32 else ()
    if not gamma and not numbers:
        return None
    chromaticities: Chromaticities = tuple(n / 100_000 for n in numbers) or SRGB_PRIMARIES  # type: ignore[assignment]
    own = max(abs(a - b) for a, b in zip(chromaticities, SRGB_PRIMARIES, strict=True)) > 0.002 and not grey
    usual = not gamma or (abs(gamma / 45455 - 1) < 0.05 and not own)  # what writers of sRGB put there
    curve: Curve = SRGB_CURVE if usual else (100_000 / gamma, 1, 0, 0, 0)
    return profile_from_primaries(chromaticities, curve, grey, f"gamma {curve[0]:.4g}")


def adobe_rgb() -> bytes:
    """Return an ICC profile of the Adobe RGB (1998) colours, which EXIF can name without one."""
    return profile_from_primaries(
        (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), (563 / 256, 1, 0, 0, 0), name="Adobe RGB (1998)"
    )


def encode_linear(linear: np.ndarray) -> tuple[np.ndarray, bytes, str]:
    """Encode linear sRGB colours with the sRGB curve in the smallest common colour space that contains them.

    Args:
        linear: (H,W,C) float32 of any range, C = 1 or 3.

    Returns:
        (H,W,C) float32 in [0,1]; the ICC profile of sRGB (empty), Display P3 or BT.2020; and its name.
    """
    profile, code = b"", 1
    for code in (1, 12, 9) if linear.shape[-1] == 3 else ():
        matrix = np.linalg.inv(_to_d50(_PRIMARIES[code])) @ _to_d50(SRGB_PRIMARIES)
        held = linear @ matrix.T.astype(np.float32)
        profile = profile_from_cicp(code, 13)
        if code == 9 or (held.min() > -_SLACK and held.max() < 1 + _SLACK):
            linear = held
            break
    light = linear.clip(0, 1)
    values = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    return values.astype(np.float32), profile, {1: "sRGB", 12: "Display P3", 9: "BT.2020"}[code]


def refuse_hdr(profile: bytes) -> None:
    """Raise an InputError for an HDR profile (PQ or HLG), which is recognised by its cicp tag or its name."""
    tags = profile[132 : 132 + 12 * int.from_bytes(profile[128:132], "big")]
    for place in range(0, min(len(tags), 1200), 12):
        if tags[place : place + 4] == b"cicp":
            start = int.from_bytes(tags[place + 4 : place + 8], "big")
            if (code := int.from_bytes(profile[start + 9 : start + 10], "big")) in _HDR:
                raise InputError(_hdr(_HDR[code]))
    named = re.search(rb"2100[ _-]?(PQ|HLG)", profile.replace(b"\0", b""))
    if named:
        raise InputError(_hdr(named[1].decode()))


def _hdr(name: str) -> str:
    return f"is an HDR image ({name}), which is not supported; convert it to SDR first"


@lru_cache(maxsize=16)
def _profile(chromaticities: Chromaticities, curve: Curve, grey: bool, name: str) -> bytes:
    """Return an ICC profile of version 4.3."""
    para = b"para" + struct.pack(">IHH5i", 0, 3, 0, *map(_fixed, curve))
    tags = {b"desc": _text(name), b"cprt": _text("Public domain"), b"wtpt": _xyz(_D50)}
    if grey:
        tags |= {b"kTRC": para}
    else:
        try:
            matrix = _to_d50(chromaticities)
        except (np.linalg.LinAlgError, ZeroDivisionError):
            return b""
        tags |= {tag: _xyz(matrix[:, k]) for k, tag in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), para)
    places: dict[bytes, int] = {}
    data, start = b"", 128 + 4 + 12 * len(tags)
    for value in tags.values():
        if value not in places:
            places[value] = start + len(data)
            data += value + b"\0" * (-len(value) % 4)
    table = b"".join(tag + struct.pack(">II", places[value], len(value)) for tag, value in tags.items())
    head = struct.pack(">I4xI4s4s4s", start + len(data), 0x04300000, b"mntr", b"GRAY" if grey else b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(_D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _to_d50(chromaticities: Chromaticities) -> np.ndarray:
    """Return the matrix from linear RGB to XYZ under D50, by Bradford's adaptation."""
    white, *primaries = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in np.reshape(chromaticities, (4, 2)).tolist())
    matrix = np.array(primaries).T
    matrix = matrix * np.linalg.solve(matrix, white)
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD @ matrix


def _fixed(value: float) -> int:
    return int(np.clip(round(value * 65536), -(2**31), 2**31 - 1))


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *map(_fixed, values))


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">III2s2sII", 0, 1, 12, b"en", b"US", len(data), 28) + data
