"""Output guard: check every tile of a model's output against its input, and repair the tiles that are broken.

The model sees the plain enlargement of the input and returns a sharper picture of the same size. It adds detail, but
keeps brightness and colours where they are. A tile that does not is broken, and each check looks for one way to break.

**Limits.** They are below, in grey levels of 255. The bundled model's own results stay inside them (docs/benchmarks.md
has the numbers), because a good tile that is repaired loses its detail. With a strength above 1 the limits of
``shares`` grow in proportion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from einops import reduce
from torch import Tensor
from torch.nn import functional as F

from fluxsr.errors import ModelError
from fluxsr.imaging.settings import Step
from fluxsr.imaging.tiling import tiles
from fluxsr.imaging.tiling.plan import TilingPlan
from fluxsr.options import REPAIRED

PATCH = 16  # pixels; the side of a token of FLUX and of the bundled model, over which a lattice repeats

CONSTANT = 1.0  # standard deviation below which an output is constant; a denoised flat input keeps more
VARIED = 4.0  # standard deviation above which an input is not constant itself, beyond its rounding and noise
TINT = 24.0  # shift of a channel's mean over the whole tile; 20 were measured before the colour fix, in a dim picture
SPOT = 64.0  # the same in a patch, where sharpening moves an edge; a black or glaring patch shifts by more
LATTICE = 10.0  # amplitude of what repeats from patch to patch; sharpened stripes and meshes of the input have 6
CHANCE = 6.0  # times what a mean over patches would have by chance, which matters in tiles of few patches
CONTRAST = 1.5  # times the standard deviation of the patches' means, which sharpening hardly changes
DETAIL = 5.0  # times the standard deviation within patches; sharpening a blurred picture reached 0.7 of this limit
ALLOWANCE = 6.0  # added to the last two limits, because a flat input may gain texture
UNCHANGED = 0.1  # root mean square of what was added; even an autoencoder alone changes a picture by more

NOT_FINITE, BLANK, SHIFTED, REPEATED, EXPLODED, PLAIN = (
    *("not finite", "black or constant", "shifted in colour", "covered by a lattice", "too high in contrast"),
    "not processed",
)


def faults(output: Tensor, input: Tensor, strength: float = 1.0) -> list[str]:
    """Return the first fault of every tile, or "" for a good one.

    Args:
        output, input: result of the model and the image it was given, both (B,3,H,W), about [0,1].
        strength: fraction of the model's step.
    """
    found = statistics(output, input)
    broken = {name: share > max(1.0, strength) for name, share in shares(found).items()}
    checks = {
        NOT_FINITE: ~found["added"].isfinite(),
        BLANK: (found["spread_out"] < CONSTANT) & (found["spread_in"] > VARIED),
        SHIFTED: broken["shift of a channel"] | broken["shift of a patch"],
        REPEATED: broken["lattice"],
        EXPLODED: broken["contrast of patches"] | broken["detail in patches"],
        PLAIN: (found["added"] < UNCHANGED) & (found["detail_in"] > VARIED) & (strength > 0),
    }
    return [next((name for name, tiles in checks.items() if tiles[k]), "") for k in range(len(output))]


def shares(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return quantities of ``statistics`` as shares of their limits at strengths up to 1, each (B,)."""
    return {
        "shift of a channel": found["tint"] / TINT,
        "shift of a patch": found["spot"] / SPOT,
        "lattice": found["lattice"] / (LATTICE + CHANCE * found["chance"]),
        "contrast of patches": found["coarse_out"] / (CONTRAST * found["coarse_in"] + ALLOWANCE),
        "detail in patches": found["detail_out"] / (DETAIL * found["detail_in"] + ALLOWANCE),
    }


def statistics(output: Tensor, input: Tensor) -> dict[str, Tensor]:
    """Return the quantities that ``faults`` compares, by name, each (B,) on the CPU, in grey levels."""
    added, every = output - input, (1, 2, 3)
    before, after = (F.avg_pool2d(image, PATCH) for image in (input, output))  # means of patches (B,3,h,w)
    height, width = (PATCH * side for side in before.shape[-2:])
    pattern = reduce(added[..., :height, :width], "b c (h y) (w x) -> b c y x", "mean", y=PATCH, x=PATCH)
    pattern = pattern - pattern.mean((2, 3), keepdim=True)
    shift, size = after - before, added.square().mean(every).sqrt()
    found = {
        "added": size,
        "tint": shift.mean((2, 3)).abs().amax(1),
        "spot": shift.abs().amax(every),
        "lattice": pattern.abs().amax(every),
        "chance": size / before[0, 0].numel() ** 0.5,  # what a mean over patches has by chance
    }
    for name, image, means in (("in", input, before), ("out", output, after)):
        variance, coarse = image.var(every), means.var(every, correction=0)
        found |= {f"spread_{name}": variance.sqrt(), f"coarse_{name}": coarse.sqrt()}
        found[f"detail_{name}"] = (variance - coarse).clamp(min=0).sqrt()
    return dict(zip(found, 255 * torch.stack(list(found.values())).cpu(), strict=True))


@dataclass(frozen=True)
class Guard:
    """Step that checks its tiles and repairs them.

    A broken tile is run again in float32, then in tiles of half the size. If it is still broken, it becomes the plain
    enlargement.

    Attributes:
        step: runs tiles through the model.
        strength: fraction of the step.
        tiling: tiling plan of the image, from which that of a single tile follows.
        exact: whether float32 could make a difference.
        repairs: counts repaired tiles by fault and remedy. None repairs nothing, and only values that are not finite
            are an error.
    """

    step: Step
    strength: float
    tiling: TilingPlan
    exact: bool
    repairs: Counter[tuple[str, str]] | None

    def __call__(self, input: Tensor) -> Tensor:
        """Return the model's tiles for the plain enlargement (B,3,H,W); all good ones are exactly the model's.

        Raises:
            ModelError: values are not finite, and nothing is repaired.
        """
        return self.checked(self.step(input, strength=self.strength), input)

    def checked(self, output: Tensor, input: Tensor) -> Tensor:
        """Do the same for tiles that were already run."""
        if self.repairs is None:
            if not output.isfinite().all():
                raise ModelError("the model gave values that are not finite; try --dtype fp32")
            return output
        input = input.to(output)
        found = faults(output, input, self.strength)
        if not any(found):
            return output
        pairs = zip(output.split(1), input.split(1), found, strict=True)
        return torch.cat([self._repaired(up, fault) if fault else hr for hr, up, fault in pairs])

    def _repaired(self, input: Tensor, fault: str) -> Tensor:
        """Return a good tile (1,3,H,W) in place of one that has a fault."""
        found, remedy = input, "replaced by the plain enlargement"
        for name, run in self._remedies(input):
            try:
                again = run(input).to(input)
            except torch.OutOfMemoryError:  # float32 needs more than the model alone
                continue
            if not any(faults(again, input, self.strength)):
                found, remedy = again, name
                break
        assert self.repairs is not None
        self.repairs[fault, remedy] += 1
        return found

    def _remedies(self, input: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        again = partial(self.step, strength=self.strength, exact=self.exact)
        if self.exact:
            yield "done again in float32", again
        size = input.shape[-2], input.shape[-1]
        if smaller := replace(self.tiling, batch_size=1).smaller(*size):
            yield "done again in smaller tiles", partial(tiles.stream, function=again, tiling=smaller.grid(*size))


def repair_notes(repairs: Counter[tuple[str, str]]) -> list[str]:
    """Return the note on an image with repaired tiles, or nothing."""
    what = "; ".join(f"{count} {fault}, {remedy}" for (fault, remedy), count in sorted(repairs.items()))
    return [f"{REPAIRED}: {what}"] if what else []
