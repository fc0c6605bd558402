"""The cases of full_size.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

OVERLAP = 128  # of tiles, in output pixels
SHRUNK = 8  # --tiny: sides, tiles and prompts are so many times smaller
BASE, TOGETHER = "folded-1024", "together-1024"


@dataclass(frozen=True)
class Row:
    """One case."""

    name: str
    side: int  # of the output, in pixels
    model: str = "folded"  # or unfolded, offloaded, int8, nf4, fp8 (stored so), fp8-products
    tile: int = 0  # largest tile; 0 is the whole image
    batch: int = 1  # tiles per forward pass
    tokens: int = 512  # of the prompt
    changes: tuple[str, ...] = ()  # compiled, an attention, variants.AUTOENCODER's
    overlap: int = OVERLAP


SHIPPED = ("compiled", "products", "channels_last", "vae_compiled", "summed")  # what the pipeline's compile=True does
VAE = SHIPPED[1:]
ROWS = (  # a run may be cut: what matters most comes first
    Row("unfolded-1024", 1024, "unfolded"),
    Row(BASE, 1024),
    Row("products-1024", 1024, changes=("products",)),
    Row("compiled-1024", 1024, changes=("compiled",)),
    Row("vae-compiled-1024", 1024, changes=VAE),
    Row(TOGETHER, 1024, changes=SHIPPED),
    Row("together-4096-batch-1", 4096, tile=1024, changes=SHIPPED, overlap=256),  # tiles of 1024 px: compiled already
    Row("64-tokens-1024", 1024, tokens=64),
    Row("together-64-tokens-1024", 1024, tokens=64, changes=SHIPPED),
    Row("vae-compiled-contiguous-1024", 1024, changes=("products", "vae_compiled")),
    Row("together-2048-batch-4", 2048, tile=1152, batch=4, changes=SHIPPED, overlap=192),  # of 1120 px, as the next
    Row("together-4096-batch-4", 4096, tile=1152, batch=4, changes=SHIPPED),
    Row("folded-512", 512),
    Row("together-512", 512, changes=SHIPPED),
    Row("flash-attention-1024", 1024, changes=("_native_flash",)),
    Row("cudnn-attention-1024", 1024, changes=("_native_cudnn",)),
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
