"""Stage 4, ours: the restorer of a small model, trained on degraded photographs and pairs of files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fluxsr.backbones.restorer import Restorer
from fluxsr.extensions.losses import at_scale
from fluxsr.keyed import keyed_generator
from fluxsr.losses.tv_lpips import Distance, tv_lpips
from fluxsr.training.config import RestorerConfig
from fluxsr.training.dataset import SCALE
from fluxsr.training.steps.distill import Batch


class RestorerStage:
    """L1 distance and TV-LPIPS between the restored and the true image."""

    def __init__(
        self,
        config: RestorerConfig,
        restorer: Restorer,
        batches: Callable[[int, Sequence[int]], Batch],
        distance: Distance | None,
        device: torch.device,
    ):
        """Set up the stage. Batches begin with x_0 and lr_up, images in [0,1]; without a distance TV-LPIPS is off."""
        self.config, self.batches, self.distance, self.device = config, batches, distance, device
        self.modules: dict[str, nn.Module] = {"restorer": restorer}

    def losses(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        c = self.config
        x_0, lr_up = (x.to(self.device, memory_format=torch.channels_last) for x in self.batches(step, samples)[:2])
        x_hat = self.modules["restorer"](lr_up).float()
        terms = {"l1": F.l1_loss(x_hat, x_0)}
        if self.distance is not None and c.tv_lpips_weight:
            views = at_scale(x_hat * 2 - 1, x_0 * 2 - 1, c.tv_lpips_scales, keyed_generator(c.run.seed, step, 0, SCALE))
            terms["tv_lpips"] = c.tv_lpips_weight * tv_lpips(*views, self.distance, c.tv_gamma)
        return terms
