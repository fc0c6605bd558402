"""Choose quantization, offload and tile size so that a model fits the memory of a device.

The choice is computed. The memory of activations was measured at FLUX.1-dev's size on an H200 (docs/benchmarks.md), and
overheads with an allocation tracker. Smaller models need so little that the estimate does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from fluxsr.errors import InputError

GIB = 2**30
SIZES = {"8gb": 8, "12gb": 12, "16gb": 16, "24gb": 24}
MEMORIES = ("auto", *SIZES, "max")
"""auto: the free memory. A size: a card with so many GiB, even if more is free. max: no savings."""

BITS = {"int8": 8.02, "fp8": 8.02, "nf4": 4.13}  # bits per weight, including the scales
EXTRAS = {"int8": "torchao", "nf4": "nf4"}  # extras of this package that the quantizations need
DECODE = 2.5 * GIB / 2**20  # bytes per pixel of a tile in 16 bits for all activations (1.4 if compiled)
CONTEXT = 0.7 * GIB  # driver and libraries, which a measured free memory already excludes
SPARE = 0.05  # fraction of the memory that fragmentation may cost
BATCH = 4  # largest number of tiles per forward pass that increases speed
FLOOR = 512  # smallest tile for resident weights; with offload it is half as large


@dataclass(frozen=True)
class Needs:
    """Memory needs of a model.

    Attributes:
        transformer: number of parameters of the folded transformer.
        vae: number of parameters of the autoencoder.
        tile_size: the model's largest tile in output pixels.
        in_flight: number of parameters that are on the device at once with offload (``parts.in_flight``).
        stored: bytes of a transformer that is already quantized; None for one in 16 or 32 bits.
        decode: activations of the autoencoder, relative to those of FLUX's own.
    """

    transformer: int
    vae: int
    tile_size: int
    in_flight: int
    stored: int | None = None
    decode: float = 1.0


@dataclass(frozen=True)
class Plan:
    """How a model is loaded and run.

    Attributes:
        dtype: number format of the weights that are not quantized.
        device: type of the device, for messages.
        tile_size: largest tile in output pixels.
        quantize: one of ``quantize.KINDS``.
        offload: whether the transformer stays in host memory and is moved to the device block by block.
        batch_size: tiles per forward pass; None means 1 on a CPU and 4 elsewhere.
        compiled: whether the model is compiled. Every image then gets tiles of ``tile_size``, one at a time.
        peak: expected memory on the device in bytes, or 0 if it was not estimated.
        hint: how to get a better plan.
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
        """Return the plan of a model that was cast or moved after loading, without an estimate of its memory."""
        batch_size = self.batch_size if self.compiled or device == self.device else None
        return replace(self, dtype=dtype, device=device, batch_size=batch_size, peak=0, hint="")

    def line(self) -> str:
        """Return the plan in one line."""
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
    """Return the plan with the highest quality that fits.

    The order is: no quantization, 8 bits, 4 bits, offload. For each of them, the largest tile that fits is chosen.

    Args:
        memory: one of ``MEMORIES``.
        free: free bytes on the device. None, as for a CPU, plans no savings.
        needs: memory needs of the model.
        dtype: number format of the model.
        device: type of the device.
        kinds: available kinds of quantization, such as ("int8", "nf4").
        compiled: whether the model will be compiled.

    Raises:
        InputError: the memory is unknown, or too small for every plan.
    """
    if memory not in MEMORIES:
        raise InputError(f"memory is '{memory}'; choose one of {', '.join(MEMORIES)}")
    if memory == "max" or free is None:
        return Plan(dtype, device, needs.tile_size, batch_size=1 if compiled else None, compiled=compiled)
    budget = free * (1 - SPARE)
    if memory in SIZES:
        budget = min(budget, (SIZES[memory] * GIB - CONTEXT) * (1 - SPARE))
    pixel = DECODE * needs.decode * dtype.itemsize / 2
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
        f"{max(0.0, budget) / GIB:.1f} GiB are free on {device}, but this model needs {least / GIB:.1f} GiB "
        "even with offload; free some memory, try --memory max, or use --device cpu"
    )


def plans(needs: Needs, dtype: torch.dtype, device: str) -> Iterator[Plan]:
    """Every plan for the model's own tile, one at a time, with the memory that it takes; in the order of ``plan``."""
    fixed = needs.vae * dtype.itemsize + DECODE * needs.decode * dtype.itemsize / 2 * needs.tile_size**2
    for quantize, offload, weights in _choices(needs, dtype):
        yield Plan(dtype, device, needs.tile_size, quantize, offload, 1, peak=int(weights + fixed))


def _choices(needs: Needs, dtype: torch.dtype) -> Iterator[tuple[str, bool, float]]:
    """Yield (quantization, offload, bytes of weights on the device), from the most exact to the slowest."""
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
    wanted = list(dict.fromkeys(skipped))
    return f'faster in {wanted[0]}: pip install "fluxsr[{EXTRAS[wanted[0]]}]"' if wanted else ""
