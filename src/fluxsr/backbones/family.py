"""What the package must know of a family of models, such as FLUX.1, and what its implementations share.

Everything that differs between families is one object of the type `Family`, in one file per family. The rest of the
package asks `families.family_of`, and never which family it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature, signature
from typing import Any, Protocol

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fluxsr.backbones.prompts import FixedPrompt, PromptEmbeddings


class Family(Protocol):
    """A family of flow-matching transformers with its autoencoders.

    Images are (B,3,H,W). Latents z are (B,C,h,w), normalised as the transformer sees them. A token is a square of
    ``patch`` x ``patch`` latents.

    Attributes:
        transformer: diffusers' class.
        folded: our subclass of it, whose modulation is constant.
        autoencoders: diffusers' classes. A class belongs to the first family that lists it.
        pipeline: diffusers' pipeline, whose methods read and write LoRA files and encode texts.
        text_parts: folders of a model that are needed to encode texts.
        patch: side of a token in latents.
        blocks: names of the transformer's lists of blocks, by kind. Recipes choose blocks by these kinds.
        embedder: name of the module that embeds time, guidance and pooled text; folding removes it.
        lora_targets: names of the layers that a new LoRA adapts. None is a modulation, which folding needs.
    """

    transformer: Any
    folded: Any
    autoencoders: tuple[Any, ...]
    pipeline: Any
    text_parts: tuple[str, ...]
    patch: int
    blocks: Mapping[str, str]
    embedder: str
    lora_targets: tuple[str, ...]

    # Latents

    def normalise(self, vae: Any, latents: Tensor) -> Tensor:
        """Return the latents of an autoencoder as the transformer sees them."""

    def denormalise(self, vae: Any, z: Tensor) -> Tensor:
        """Undo ``normalise``."""

    def latent_pixels(self, vae: Any) -> int:
        """Return the side of a latent in pixels."""

    def latent_channels(self, config: Any) -> int:
        """Return the number of channels of the latents that a transformer of this configuration takes."""

    # The transformer

    def velocity(self, transformer: Any, z_t: Tensor, t: Tensor, prompt: Prompt, guidance: float | None) -> Tensor:
        """Return eps - z_0 (B,C,h,w) in the transformer's number format, for times t (B,) in [0,1], 1 is noise."""

    def embeds_guidance(self, config: Any) -> bool:
        """Return whether a transformer of this configuration needs a guidance scale as an input."""

    def classifier_free(self, config: Any) -> bool:
        """Return whether a transformer of this configuration is guided by a second prediction without a text."""

    def prompt_widths(self, config: Any) -> tuple[int, int]:
        """Return the widths of a prompt's embeddings and of its pooled embedding, 0 for none."""

    def tap(self, block: nn.Module, text_tokens: int, collect: Callable[[Tensor], None]) -> RemovableHandle:
        """Give ``collect`` the attention output (B,N,D) of a block's image tokens at every call of the block."""

    # Folding

    def condition(self, transformer: Any, t: float, guidance: float | None, pooled: Tensor) -> Tensor:
        """Return what all modulations are computed from, (1,D). Only ``embedder`` needs to be in memory."""

    def constant(self, module: nn.Module, condition: Tensor | None) -> nn.Module | None:
        """Return the constant that replaces a module, or None for a module that stays.

        Without a condition, the constant is zero and will be loaded.
        """

    def is_modulation(self, name: str) -> bool:
        """Return whether the layer or weight of this name is removed by folding."""

    # Files and texts

    def convert(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a transformer's weights under diffusers' names; they may be under their original ones.

        Raises:
            KeyError: a weight is missing.
        """

    def claims(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Return whether a file with tensors of these names and shapes, whole or LoRA, can only be this family's."""

    def read_lora(self, source: Any, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return matrices, alphas and header of a LoRA under diffusers' names.

        Args:
            source: as ``lora_state_dict`` of diffusers' pipelines takes it: a folder, a Hub id or tensors.
            options: also of that method.
        """

    def encode_texts(
        self, pipeline: Any, texts: Sequence[str], device: torch.device, tokens: int
    ) -> tuple[Tensor, Tensor]:
        """Return embeddings (B,tokens,D) and pooled embeddings (B,P) from a pipeline of ``text_parts`` alone."""

    # The teacher

    def shift(self, tokens: int, steps: int) -> float:
        """Return mu of the teacher's schedule for images of so many tokens."""


Prompt = FixedPrompt | PromptEmbeddings


class NoCondition(nn.Module):
    """Replacement for a folded transformer's embedder of conditions, whose output is not used."""

    def forward(self, *_: Any, **__: Any) -> None:
        return None


@torch.no_grad()
def replace_modules(module: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace modules anywhere below a module, in place, where ``replacement`` returns something."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if (new := replacement(child)) is not None:
                setattr(parent, name, new)


def folded_class(kind: Any, embedder: str, constant: Callable[[nn.Module, Tensor | None], nn.Module | None]) -> Any:
    """Return a subclass of a transformer's class that stands at one time, guidance and prompt.

    It saves and loads like any other, with ``folded_t``, ``folded_guidance`` and ``folded_prompt`` in its config.

    Args:
        kind: diffusers' class.
        embedder, constant: the family's.
    """
    own = {"folded_t": 0.0, "folded_guidance": None, "folded_prompt": ""}
    parameters = list(signature(kind.__init__).parameters.values())
    parameters += [Parameter(name, Parameter.KEYWORD_ONLY, default=value) for name, value in own.items()]

    def __init__(self: Any, **config: Any) -> None:
        filled = {p.name: config.get(p.name, p.default) for p in parameters[1:] if p.name not in own}
        kind.__init__(self, **filled)  # with all values: diffusers notes others as defaults, and from_config drops them
        replace_modules(self, lambda module: constant(module, None))
        setattr(self, embedder, NoCondition())

    __init__.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # read by diffusers
    members = {"__init__": register_to_config(__init__), "__doc__": f"{kind.__name__} at one fixed condition."}
    # diffusers looks for the class in the top-level package when it loads a pipeline
    return type(f"Folded{kind.__name__}", (kind,), {**members, "__module__": "fluxsr"})
