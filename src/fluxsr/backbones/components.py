"""Classes that diffusers looks for in ``fluxsr`` when it loads a saved pipeline.

``model_index.json`` names a component's library and class. diffusers takes the class from that library, and learns how
to load it from the base class of the same library.
"""

from diffusers import ModelMixin

from fluxsr.backbones.folding import FoldedFluxTransformer2DModel
from fluxsr.backbones.prompts import PromptEmbeddings

__all__ = ["FoldedFluxTransformer2DModel", "ModelMixin", "PromptEmbeddings"]
