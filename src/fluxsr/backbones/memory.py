"""Which number format, quantization, offload and tile make a model fit a device: arithmetic alone.

Activations were measured at FLUX.1-dev's size on an H200 (docs/benchmarks.md), overheads with an allocation tracker; a
model of other sizes is small enough for it not to matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from fluxsr.errors import InputError

GIB = 2**30
SIZES = {"8gb": 8, "12gb": 12, "16gb": 16, "24gb": 24}
MEMORIES = ("auto", *SIZES, "max")
"""auto: what is free; a size: a card of so many GiB, of which more may be free; max: nothing is saved."""

BITS = {"int8": 8.02, "fp8": 8.02, "nf4": 4.13}  # a weight, its share of the scales included
DECODE = 2.5 * GIB / 2**20  # bytes per pixel of a tile in 16 bits, all in all; compiled 1.4
CONTEXT = 0.7 * GIB  # driver and libraries; where free memory was asked for, they have theirs already
SPARE = 0.05  # share of the memory that fragments
BATCH = 4  # tiles per forward pass that still gain speed
FLOOR = 512  # smallest tile that is planned for resident weights; where they are offloaded, half of it


@dataclass(frozen=True)
class Needs:
    """What a model takes.

    Attributes:
        transformer: parameters, folded.
        vae: parameters.
        tile_size: the model's own, in output pixels.
        in_flight: parameters of an offloaded transformer that are on the device at once (``parts.in_flight``).
        stored: bytes of a transformer that is quantized already; None for one in 16 or 32 bits.
    """

    transformer: int
    vae: int
    tile_size: int
    in_flight: int
    stored: int | None = None


@dataclass(frozen=True)
class Plan:
    """How a model is loaded and run.

    Attributes:
        dtype: of what is not quantized.
        device: on which it computes, for people.
        quantize: as ``quantize.KINDS``.
        offload: whether the transformer waits in the host's memory and comes block by block.
        tile_size: largest tile, output pixels.
        batch_size: tiles per forward pass; None takes 1 on a CPU and 4 elsewhere.
        compiled: whether the code is compiled, for one size: every image gets tiles of ``tile_size``, one at a time.
        peak: bytes that it is expected to need on the device; 0 where nobody counted.
        hint: what would make a better plan.
    """

    dtype: torch.dtype
    device: str
    tile_size: int
    quantize: str = "none"
    offload: bool = False
    batch_size: int | None = None
    compiled: bool = False
    peak: int = 0
    hint: str = ""

    def moved(self, dtype: torch.dtype, device: str) -> Plan:
        """Return the plan of a model that was cast or moved after loading; nobody counted the memory for it."""
        batch_size = self.batch_size if self.compiled or device == self.device else None
        return replace(self, dtype=dtype, device=device, batch_size=batch_size, peak=0, hint="")

    def line(self) -> str:
        """The plan in one line."""
        kind = str(self.dtype).removeprefix("torch.") + (f", weights in {self.quantize}" * (self.quantize != "none"))
        parts = [f"{kind} on {self.device}", "offloaded block by block" * self.offload]
        parts += [("autoencoder " * self.offload + "compiled") * self.compiled, f"tiles of {self.tile_size} px"]
        parts += [f"{self.batch_size} at a time"] if self.batch_size else []
        parts += [f"about {self.peak / GIB:.1f} GiB"] if self.peak else []
        return ", ".join(filter(None, parts)) + (f" ({self.hint})" if self.hint else "")


def plan(
    memory: str,
    free: int | None,
    needs: Needs,
    dtype: torch.dtype,
    device: str,
    kinds: tuple[str, ...],
    compiled: bool = False,
) -> Plan:
    """The plan that loses least and fits: first whole weights, then 8 bits, then 4, then offload; large tiles first.

    Args:
        memory: one of ``MEMORIES``.
        free: bytes free on the device; None where there is no such number (a CPU): nothing is saved then.
        needs: of the model.
        dtype: asked for, or the device's best.
        device: its type.
        kinds: of quantization that can be had here, such as ("int8", "nf4").
        compiled: what is loaded will be compiled.

    Raises:
        InputError: an unknown memory, or one that is too small for any plan.
    """
    if memory not in MEMORIES:
        raise InputError(f"memory is '{memory}'; choose one of {', '.join(MEMORIES)}")
    if memory == "max" or free is None:
        return Plan(dtype, device, needs.tile_size, batch_size=1 if compiled else None, compiled=compiled)
    budget = free * (1 - SPARE)
    if memory in SIZES:
        budget = min(budget, (SIZES[memory] * GIB - CONTEXT) * (1 - SPARE))
    pixel = DECODE * dtype.itemsize / 2
    skipped: list[str] = []
    for quantize, offload, weights in _choices(needs, dtype):
        for tile_size in _tiles(needs.tile_size, FLOOR // 2 if offload else FLOOR):
            fixed, tile = weights + needs.vae * dtype.itemsize, pixel * tile_size**2
            if fixed + tile > budget:
                continue
            if quantize not in ("none", *kinds):
                skipped.append(quantize)
                break
            batch = 1 if compiled else max(1, min(BATCH, int((budget - fixed) // tile)))
            peak = int(fixed + batch * tile)
            return Plan(dtype, device, tile_size, quantize, offload, batch, compiled, peak, _hint(skipped))
    least = needs.in_flight * dtype.itemsize + needs.vae * dtype.itemsize + pixel * (FLOOR // 2) ** 2
    raise InputError(
        f"{max(0.0, budget) / GIB:.1f} GiB are free on {device}, this model needs {least / GIB:.1f} "
        "even block by block; free some, take --memory max to try, or --device cpu"
    )


def plans(needs: Needs, dtype: torch.dtype, device: str) -> Iterator[Plan]:
    """Every plan for the model's own tile, one at a time, with the memory that it takes; in the order of ``plan``."""
    fixed = needs.vae * dtype.itemsize + DECODE * dtype.itemsize / 2 * needs.tile_size**2
    for quantize, offload, weights in _choices(needs, dtype):
        yield Plan(dtype, device, needs.tile_size, quantize, offload, 1, peak=int(weights + fixed))


def _choices(needs: Needs, dtype: torch.dtype) -> Iterator[tuple[str, bool, float]]:
    """(quantization, offload, bytes of weights on the device), the most faithful first, offload last: it is slow."""
    whole = needs.transformer * dtype.itemsize
    if needs.stored is not None:
        yield "none", False, needs.stored
    else:
        yield "none", False, whole
        yield from ((kind, False, needs.transformer * BITS[kind] / 8) for kind in ("int8", "nf4"))
    yield "none", True, min(needs.in_flight * dtype.itemsize, needs.stored or whole)


def _tiles(largest: int, least: int) -> Iterator[int]:
    yield largest
    yield from (side for side in (1024, 768, 512, 384, 256) if least <= side < largest)


def _hint(skipped: list[str]) -> str:
    packages = {"int8": "torchao", "nf4": "nf4"}
    wanted = list(dict.fromkeys(skipped))
    return f'faster in {wanted[0]}: pip install "fluxsr[{packages[wanted[0]]}]"' if wanted else ""
