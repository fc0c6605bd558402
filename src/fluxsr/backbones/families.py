"""List the supported model families, and find the family of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from diffusers import ModelMixin

from fluxsr.backbones.family import Family
from fluxsr.backbones.flux1 import Flux1
from fluxsr.backbones.flux2 import Flux2
from fluxsr.backbones.prompts import PromptEmbeddings
from fluxsr.errors import ModelError

FAMILIES: tuple[Family, ...] = (Flux1(), Flux2())

CLASSES: dict[str, dict[str, Any]] = {
    "transformer": {kind.__name__: kind for one in FAMILIES for kind in (one.transformer, one.folded)},
    "vae": {kind.__name__: kind for one in reversed(FAMILIES) for kind in one.autoencoders},
}
# Classes that ``model_index.json`` of a saved pipeline names. diffusers looks for them and for their base class in
# ``fluxsr``. The base class tells it how to load them.
COMPONENTS = {"ModelMixin": ModelMixin, "PromptEmbeddings": PromptEmbeddings}
COMPONENTS |= {name: kind for part in CLASSES.values() for name, kind in part.items() if kind.__module__ == "fluxsr"}

if TYPE_CHECKING:
    Transformer: TypeAlias = Any
    Autoencoder: TypeAlias = Any
else:  # diffusers compares a pipeline's components with the annotations of its constructor
    Transformer = Union[tuple(CLASSES["transformer"].values())]  # noqa: UP007
    Autoencoder = Union[tuple(CLASSES["vae"].values())]  # noqa: UP007


def known_class(part: str, config: Mapping[str, Any]) -> Any:
    """Return the class that the configuration of a transformer or vae names.

    Raises:
        ModelError: the class is unknown.
    """
    name = config.get("_class_name", "none")
    if name not in CLASSES[part]:
        raise ModelError(f"the {part} is of class {name}; known classes are {', '.join(CLASSES[part])}")
    return CLASSES[part][name]


def family_of(model: Any) -> Family:
    """Return the family of a transformer, of an autoencoder, or of a transformer's configuration.

    Raises:
        ModelError: the class is unknown.
    """
    module = getattr(model, "_orig_mod", model)  # torch.compile wraps the model
    kind = known_class("transformer", module) if isinstance(module, Mapping) else type(module)
    for one in FAMILIES:
        if issubclass(kind, (one.transformer, *one.autoencoders)):
            return one
    raise ModelError(f"a {kind.__name__} is of no known family; expected one of {', '.join(CLASSES['transformer'])}")


def family_of_layers(shapes: Mapping[str, Sequence[int]]) -> Family:
    """Return the family of a file, whole or LoRA, whose tensors have these names and shapes."""
    return next((one for one in FAMILIES if one.claims(shapes)), FAMILIES[0])


def is_folded(transformer: Any) -> bool:
    """Return whether the modulation of a transformer is constant."""
    return isinstance(transformer, family_of(transformer).folded)
