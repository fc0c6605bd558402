"""The cases of full_size.py, and which of them need not be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from variants import AUTOENCODER

OVERLAP = 128  # of tiles, in output pixels
SHRUNK = 8  # --tiny: sides, tiles and prompts are so many times smaller
BASE = "folded-1024"  # what "best" improves on


@dataclass(frozen=True)
class Row:
    """One case."""

    name: str
    side: int  # of the output, in pixels
    model: str = "folded"  # or unfolded, offloaded, int8, nf4, fp8 (stored so), fp8-products
    tile: int = 0  # largest tile; 0 is the whole image
    batch: int = 1  # tiles per forward pass
    tokens: int = 512  # of the prompt
    changes: tuple[str, ...] = ()  # compiled, fused_qkv, an attention, AUTOENCODER's; best (of what was measured)
    overlap: int = OVERLAP


BEST, VAE = ("best",), ("products", "channels_last", "vae_compiled")
ROWS = (  # a run may be cut: what matters most comes first
    Row("unfolded-1024", 1024, "unfolded"),
    Row("folded-1024", 1024),
    Row("products-1024", 1024, changes=("products",)),
    Row("compiled-1024", 1024, changes=("compiled",)),
    Row("vae-compiled-1024", 1024, changes=(*VAE, "summed")),  # as the pipeline compiles it
    Row("vae-compiled-benchmark-1024", 1024, changes=(*VAE, "summed", "cudnn_benchmark")),
    Row("together-1024", 1024, changes=BEST),
    Row("fused-qkv-1024", 1024, changes=("compiled", "fused_qkv")),
    Row("together-4096-batch-1", 4096, tile=1024, changes=BEST, overlap=256),  # tiles of 1024 px: compiled already
    Row("64-tokens-1024", 1024, tokens=64),
    Row("together-64-tokens-1024", 1024, tokens=64, changes=BEST),
    Row("compiled-cudnn-1024", 1024, changes=("compiled", "_native_cudnn")),
    Row("vae-compiled-contiguous-1024", 1024, changes=("products", "vae_compiled")),
    Row("best-1024", 1024, changes=BEST),
    Row("together-2048-batch-4", 2048, tile=1152, batch=4, changes=BEST, overlap=192),  # of 1120 px, as the next
    Row("together-4096-batch-4", 4096, tile=1152, batch=4, changes=BEST),
    Row("folded-512", 512),
    Row("flash-attention-1024", 1024, changes=("_native_flash",)),
    Row("cudnn-attention-1024", 1024, changes=("_native_cudnn",)),
    Row("compiled-flash-1024", 1024, changes=("compiled", "_native_flash")),
    Row("benchmark-1024", 1024, changes=("products", "cudnn_benchmark")),
    Row("together-512", 512, changes=BEST),
    Row("vae-compiled-plain-norms-1024", 1024, changes=VAE),
    Row("channels-last-1024", 1024, changes=("channels_last",)),
    Row("folded-2048-batch-4", 2048, tile=1152, batch=4),
    Row("folded-4096-batch-4", 4096, tile=1152, batch=4),
    Row("offloaded-1024", 1024, "offloaded"),  # from here on the transformer changes for good
    Row("int8-1024", 1024, "int8"),
    Row("int8-compiled-1024", 1024, "int8", changes=("compiled",)),
    Row("fp8-products-1024", 1024, "fp8-products", changes=("compiled",)),
    Row("nf4-1024", 1024, "nf4"),
    Row("fp8-1024", 1024, "fp8"),
    Row("unfolded-512", 512, "unfolded"),
)


def smaller(row: Row) -> Row:
    """The same for a model that runs on a CPU in no time."""
    return replace(
        row,
        side=row.side // SHRUNK,
        tile=row.tile // SHRUNK,
        tokens=row.tokens // SHRUNK,
        overlap=row.overlap // SHRUNK,
    )


def best(measured: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """What was fastest for the transformer, and what for the autoencoder, of the rows comparable with BASE."""
    base = {row["name"]: row for row in measured}.get(BASE, {})
    alike = [
        row
        for row in measured
        if "encode" in row and all(row[key] == base.get(key) for key in ("side", "model", "tokens"))
    ]
    if not alike:
        return ()
    walk = min(alike, key=lambda row: row["transformer"])["changes"]
    code = min(alike, key=lambda row: row["encode"] + row["decode"])["changes"]
    return (*(name for name in walk if name not in AUTOENCODER), *(name for name in code if name in AUTOENCODER))


def again(row: Row, measured: Sequence[dict[str, Any]]) -> str:
    """Why a row need not be measured: another one has measured the same."""
    case = {key: value for key, value in asdict(row).items() if key != "name"}
    same = [other["name"] for other in measured if "device_s" in other and other.items() >= case.items()]
    return f"the same as {same[0]}" if same else ""
