"""Interface of a model family such as FLUX.1, and helpers for its implementations.

Each family is one object of the type `Family` in a file of its own. All differences between families are there. The
rest of the package calls its methods and never tests which family it is.
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
        transformer: class of the transformer in diffusers.
        folded: subclass of ``transformer`` whose modulation is constant.
        autoencoders: classes of autoencoders, including those that replace the model's own for speed. A class belongs
            to the first family that lists it.
        text_parts: names of the model's folders that are needed to encode texts.
        patch: side of a token in latents.
        blocks: names of the transformer's lists of blocks, by kind. Recipes choose blocks by these kinds.
        embedder: name of the module that embeds time, guidance and pooled text; folding removes it.
        lora_targets: names of the layers that a new LoRA adapts. None is a modulation, which folding needs.
    """

    transformer: Any
    folded: Any
    autoencoders: tuple[Any, ...]
    text_parts: tuple[str, ...]
    patch: int
    blocks: Mapping[str, str]
    embedder: str
    lora_targets: tuple[str, ...]

    @property
    def pipeline(self) -> Any:
        """Pipeline class of diffusers, whose methods read and write LoRA files and encode texts."""

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
        """Return eps - z_0 (B,C,h,w) in the transformer's number format. Times t (B,) are in [0,1], 1 is noise."""

    def embeds_guidance(self, config: Any) -> bool:
        """Return whether a transformer of this configuration needs a guidance scale as an input."""

    def classifier_free(self, config: Any) -> bool:
        """Return whether a transformer of this configuration uses classifier-free guidance as a teacher."""

    def prompt_widths(self, config: Any) -> tuple[int, int]:
        """Return the widths of a prompt's embeddings and of its pooled embedding, 0 for none."""

    def tap(self, block: nn.Module, text_tokens: int, collect: Callable[[Tensor], None]) -> RemovableHandle:
        """Pass the attention output (B,N,D) of a block's image tokens to ``collect`` whenever the block is called."""

    # Folding

    def condition(self, transformer: Any, t: float, guidance: float | None, pooled: Tensor) -> Tensor:
        """Return the embedding (1,D) that all modulations are computed from. It needs only ``embedder`` in memory."""

    def constant(self, module: nn.Module, condition: Tensor | None) -> nn.Module | None:
        """Return the constant that replaces a module when folding, or None if the module is kept.

        Without a condition the constant is zero, and its values are loaded later.
        """

    def is_modulation(self, name: str) -> bool:
        """Return whether the layer or weight of this name is removed by folding."""

    # Files and texts

    def convert(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a transformer's weights under diffusers' names. The input may use the original names.

        Raises:
            KeyError: a weight is missing.
        """

    def claims(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Return whether tensors of these names and shapes (a model or a LoRA) can only belong to this family."""

    def read_lora(self, source: Any, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return matrices, alphas and header of a LoRA under diffusers' names.

        Args:
            source: folder, Hub id or tensors, as for ``lora_state_dict`` of diffusers' pipelines.
            options: other arguments of that method.
        """

    def encode_texts(
        self, pipeline: Any, texts: Sequence[str], device: torch.device, tokens: int
    ) -> tuple[Tensor, Tensor]:
        """Return embeddings (B,tokens,D) and pooled embeddings (B,P) from a pipeline of ``text_parts`` alone."""

    # The teacher

    def shift(self, tokens: int, steps: int) -> float:
        """Return mu of the teacher's schedule for images with ``tokens`` tokens."""


Prompt = FixedPrompt | PromptEmbeddings


class NoCondition(nn.Module):
    """Replacement for the condition embedder of a folded transformer, which does not use its output."""

    def forward(self, *_: Any, **__: Any) -> None:
        return None


@torch.no_grad()
def replace_modules(module: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace, in place, every module below ``module`` for which ``replacement`` does not return None."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if (new := replacement(child)) is not None:
                setattr(parent, name, new)


def extended_class(kind: Any, name: str, own: dict[str, Any], finish: Callable[..., None], doc: str) -> Any:
    """Return a subclass of a model class of diffusers with more options, which is saved and loaded like its base class.

    Args:
        kind: model class of diffusers.
        name: name of the subclass.
        own: its options besides those of ``kind``, with their defaults.
        finish: called with a new model and its own options.
        doc: docstring of the subclass.
    """
    parameters = list(signature(kind.__init__).parameters.values())
    parameters += [Parameter(option, Parameter.KEYWORD_ONLY, default=value) for option, value in own.items()]

    def __init__(self: Any, **config: Any) -> None:
        filled = {p.name: config.get(p.name, p.default) for p in parameters[1:]}
        kind.__init__(self, **{key: value for key, value in filled.items() if key not in own})
        finish(self, **{key: filled[key] for key in own})

    __init__.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # read by diffusers
    # diffusers looks for the class in the top-level package when it loads a pipeline
    return type(name, (kind,), {"__init__": register_to_config(__init__), "__doc__": doc, "__module__": "fluxsr"})


def folded_class(kind: Any, embedder: str, constant: Callable[[nn.Module, Tensor | None], nn.Module | None]) -> Any:
    """Return a subclass of a transformer class whose time, guidance and prompt are fixed.

    Its config also has ``folded_t``, ``folded_guidance`` and ``folded_prompt``.

    Args:
        kind: transformer class of diffusers.
        embedder: see `Family`.
        constant: see `Family.constant`.
    """

    def finish(model: Any, **_: Any) -> None:
        replace_modules(model, lambda module: constant(module, None))
        setattr(model, embedder, NoCondition())

    own = {"folded_t": 0.0, "folded_guidance": None, "folded_prompt": ""}
    return extended_class(kind, f"Folded{kind.__name__}", own, finish, f"{kind.__name__} with fixed conditions.")
