"""Classes that diffusers looks for in ``fluxsr`` when it loads a saved pipeline.

``model_index.json`` names a component's library and class. diffusers takes the class from that library, and learns how
to load it from the base class of the same library.
"""

from diffusers import ModelMixin

from fluxsr.backbones.families import FAMILIES
from fluxsr.backbones.prompts import PromptEmbeddings

COMPONENTS = {kind.__name__: kind for kind in (ModelMixin, PromptEmbeddings, *(one.folded for one in FAMILIES))}
