"""The same latent cut into tokens in several ways, and what comes of each averaged.

A token is 2 x 2 latents, and what the transformer gives at a place depends a little on where in its token the place
lies. That part is no detail of the picture. Averaged over the ways to cut, it goes; ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

# By how many latents, down and to the right, the first whole token is moved.
CUTS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((0, 0),),
    2: ((0, 0), (1, 1)),
    4: ((0, 0), (0, 1), (1, 0), (1, 1)),
}


def over_cuts(call: Callable[[Tensor], Tensor], z: Tensor, cuts: int = 1) -> Tensor:
    """Mean of ``call`` over ways to cut a latent into tokens: one call each.

    Args:
        call: latents (B,C,h,w), h and w even, to values of that shape.
        z: latents (B,C,h,w), h and w even; where a cut moves, they are mirrored by one at its two ends.
        cuts: 1, which is ``call`` alone, 2 or 4.

    Returns:
        (B,C,h,w).

    Raises:
        KeyError: another number of cuts.
    """
    height, width = z.shape[-2:]
    made = [
        call(F.pad(z, (x, x, y, y), mode="reflect"))[..., y : y + height, x : x + width] if x or y else call(z)
        for y, x in CUTS[cuts]
    ]
    return made[0] if len(made) == 1 else sum(made[1:], made[0]) / len(made)
