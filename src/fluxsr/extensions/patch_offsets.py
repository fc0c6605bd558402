"""The velocity as a mean over offsets of the grid of tokens; not part of the paper.

A token is 2 x 2 latents, and what the transformer returns for a latent depends a little on the latent's position in its
token. This part is an artefact with the period of a token. Averaging over the positions removes it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

# Rows and columns by which the grid of tokens is moved, for each number of offsets.
OFFSETS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((0, 0),),
    2: ((0, 0), (1, 1)),
    4: ((0, 0), (0, 1), (1, 0), (1, 1)),
}


def mean_over_offsets(call: Callable[[Tensor], Tensor], z: Tensor, patch_offsets: int = 1) -> Tensor:
    """Return the mean of ``call`` over offsets of the grid of tokens; every offset takes one call.

    Args:
        call: function from latents (B,C,h,w), h and w even, to values of that shape.
        z: latents (B,C,h,w), h and w even. For an offset, they are mirrored by one latent at both ends.
        patch_offsets: number of offsets: 1, which is ``call`` alone, 2 or 4.

    Returns:
        (B,C,h,w).
    """
    height, width = z.shape[-2:]
    outputs = [
        call(F.pad(z, (x, x, y, y), mode="reflect"))[..., y : y + height, x : x + width] if x or y else call(z)
        for y, x in OFFSETS[patch_offsets]
    ]
    return outputs[0] if len(outputs) == 1 else sum(outputs[1:], outputs[0]) / len(outputs)
