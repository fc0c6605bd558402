"""fluxsr: one-step x4 super-resolution by Flow Trajectory Distillation (FluxSR, arXiv 2502.01993).

Importing this package does nothing else: torch and diffusers are imported when one of the names
below is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxsr.version import __version__

if TYPE_CHECKING:
    from fluxsr.hub.publish import Adapter
    from fluxsr.pipeline import FluxSRPipeline
    from fluxsr.single import load, upscale

__all__ = ["Adapter", "FluxSRPipeline", "__version__", "load", "upscale"]


def __getattr__(name: str) -> Any:
    if name == "FluxSRPipeline":
        from fluxsr.pipeline import FluxSRPipeline

        return FluxSRPipeline
    if name in ("load", "upscale"):
        from fluxsr import single

        return getattr(single, name)
    if name == "Adapter":
        from fluxsr.hub.publish import Adapter

        return Adapter
    if name in ("ModelMixin", "PromptEmbeddings") or name.startswith(("Folded", "AutoencoderTiny")):
        # what a saved pipeline names
        from fluxsr.backbones.families import COMPONENTS

        if name in COMPONENTS:
            return COMPONENTS[name]
    raise AttributeError(f"module 'fluxsr' has no attribute '{name}'; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
