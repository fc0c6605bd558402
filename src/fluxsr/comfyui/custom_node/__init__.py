"""FluxSR's nodes. The code is in the package fluxsr, which has to be installed where ComfyUI runs."""

from fluxsr.comfyui.nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
