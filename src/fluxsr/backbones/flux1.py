"""The FLUX.1 family: latents, token positions, transformer call, folding, layer names, text encoders and schedule.

The bundled model belongs to this family too. It has the same transformer class at a smaller size, and the autoencoder
AutoencoderDC in place of AutoencoderKL. AutoencoderTiny (TAEF1) returns normalised latents: scale 1 and shift 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, FluxTransformer2DModel
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero, AdaLayerNormZeroSingle
from einops import rearrange
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fluxsr import flow
from fluxsr.backbones.family import Family, Prompt, folded_class
from fluxsr.backbones.restorer import RestoringAutoencoder

PATCH = 2
MODULATED = (AdaLayerNormZero, AdaLayerNormZeroSingle, AdaLayerNormContinuous)
# Prefixes of the transformer's names in BFL's own checkpoints. All-in-one checkpoints also hold other models.
ORIGINAL = (
    "double_blocks.",
    "single_blocks.",
    "img_in.",
    "txt_in.",
    "time_in.",
    "vector_in.",
    "guidance_in.",
    "final_",
)


def pack(z: Tensor) -> Tensor:
    """Convert latents (B,C,h,w) to tokens (B, h/2*w/2, 4C) with channel order c, dy, dx."""
    return rearrange(z, "b c (h dy) (w dx) -> b (h w) (c dy dx)", dy=PATCH, dx=PATCH)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Convert tokens (B,N,4C) to latents (B,C,height,width)."""
    return rearrange(
        tokens, "b (h w) (c dy dx) -> b c (h dy) (w dx)", h=height // PATCH, w=width // PATCH, dy=PATCH, dx=PATCH
    )


def image_ids(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return the positions (h/2*w/2, 3) = (0, row, column) of the tokens of latents (..., height, width).

    They are always float32, because bfloat16 cannot distinguish rows above 256.
    """
    rows, columns = height // PATCH, width // PATCH
    ids = torch.zeros(rows, columns, 3, device=device)
    ids[..., 1] = torch.arange(rows, device=device)[:, None]
    ids[..., 2] = torch.arange(columns, device=device)
    return ids.reshape(-1, 3)


class ConstantAdaLN(nn.Module):
    """Replacement for AdaLayerNormZero (6 chunks), AdaLayerNormZeroSingle (3) and AdaLayerNormContinuous (2)."""

    modulation: Tensor

    def __init__(self, width: int, chunks: int, modulation: Tensor | None = None):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        empty = torch.zeros(1, chunks * width)
        self.register_buffer("modulation", empty if modulation is None else modulation.detach().reshape(1, -1).clone())
        self.chunks = chunks

    def forward(self, x: Tensor, emb: Tensor | None = None, **_: Any) -> Any:
        parts = self.modulation.to(x.dtype).chunk(self.chunks, dim=1)
        # AdaLayerNormContinuous has the scale first.
        scale, shift = parts[:2] if self.chunks == 2 else (parts[1], parts[0])
        x = self.norm(x) * (1 + scale[:, None]) + shift[:, None]
        return x if self.chunks == 2 else (x, *parts[2:])


def constant(module: Any, condition: Tensor | None) -> nn.Module | None:
    """Return the constant that replaces an adaptive norm, or None for another module."""
    if not isinstance(module, MODULATED):
        return None
    width = module.norm.normalized_shape[0]
    modulation = None if condition is None else module.linear(module.silu(condition))
    return ConstantAdaLN(width, module.linear.out_features // width, modulation)


FoldedFluxTransformer2DModel = folded_class(FluxTransformer2DModel, "time_text_embed", constant)


class Flux1(Family):
    """FLUX.1 as a `Family`, which documents all members."""

    transformer = FluxTransformer2DModel
    folded = FoldedFluxTransformer2DModel
    autoencoders = (AutoencoderKL, AutoencoderDC, RestoringAutoencoder, AutoencoderTiny)
    text_parts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    patch = PATCH
    blocks = {"double": "transformer_blocks", "single": "single_transformer_blocks"}
    embedder = "time_text_embed"
    # diffusers' own list, the linear layers of single-stream blocks, the latent embedder and the last layer. The last
    # layer is called proj_out too.
    lora_targets = (
        *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")),
        *("attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("proj_mlp", "proj_out", "x_embedder"),
    )

    @property
    def pipeline(self) -> Any:
        from diffusers import FluxPipeline  # imports transformers

        return FluxPipeline

    def normalise(self, vae: Any, latents: Tensor) -> Tensor:
        return (latents - self._shift(vae)) * vae.config.scaling_factor

    def denormalise(self, vae: Any, z: Tensor) -> Tensor:
        return z / vae.config.scaling_factor + self._shift(vae)

    def _shift(self, vae: Any) -> float:
        return getattr(vae.config, "shift_factor", None) or 0.0

    def latent_pixels(self, vae: Any) -> int:
        widths = getattr(vae.config, "block_out_channels", None) or vae.config.encoder_block_out_channels
        return 2 ** (len(widths) - 1)

    def latent_channels(self, config: Any) -> int:
        return config.in_channels // PATCH**2

    def velocity(self, transformer: Any, z_t: Tensor, t: Tensor, prompt: Prompt, guidance: float | None) -> Tensor:
        (batch, _, height, width), dtype, device = z_t.shape, transformer.dtype, z_t.device
        embeds, pooled = (x.to(device, dtype) for x in (prompt.prompt_embeds, prompt.pooled_prompt_embeds))
        tokens = transformer(
            hidden_states=pack(z_t).to(dtype),
            encoder_hidden_states=embeds.expand(batch, -1, -1),
            pooled_projections=pooled.expand(batch, -1),
            timestep=t,  # the transformer multiplies time and guidance by 1000
            guidance=None if guidance is None else torch.full((batch,), guidance, device=device),
            img_ids=image_ids(height, width, device),
            txt_ids=torch.zeros(embeds.shape[1], 3, device=device),
        ).sample
        return unpack(tokens.float(), height, width)

    def embeds_guidance(self, config: Any) -> bool:
        return bool(config.get("guidance_embeds"))

    def classifier_free(self, config: Any) -> bool:
        return False

    def prompt_widths(self, config: Any) -> tuple[int, int]:
        return config["joint_attention_dim"], config["pooled_projection_dim"]

    def tap(self, block: Any, text_tokens: int, collect: Callable[[Tensor], None]) -> RemovableHandle:
        """Collect the output of a double-stream block after the output projection and before the gate.

        A single-stream block has no output projection for attention alone, so its raw attention is collected. The paper
        does not say which of the two it means.
        """

        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            collect(output[0] if isinstance(output, tuple) else output[:, text_tokens:])

        return block.attn.register_forward_hook(hook)

    @torch.no_grad()
    def condition(self, transformer: Any, t: float, guidance: float | None, pooled: Tensor) -> Tensor:
        scales = [t] if guidance is None else [t, guidance]  # in the order of the embedder's arguments
        return transformer.time_text_embed(
            *(torch.tensor([scale], device=pooled.device) * 1000 for scale in scales), pooled
        )

    def constant(self, module: nn.Module, condition: Tensor | None) -> nn.Module | None:
        return constant(module, condition)

    def is_modulation(self, name: str) -> bool:
        return bool(re.search(r"^time_text_embed\b|(^|\.)norm\w*\.linear\b", name))

    def convert(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        names = {name.removeprefix("model.diffusion_model."): name for name in weights}
        if "double_blocks.0.img_attn.qkv.weight" not in names:
            return weights
        from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers  # slow

        found = {short: weights[name] for short, name in names.items() if short.startswith(ORIGINAL)}
        return convert_flux_transformer_checkpoint_to_diffusers(found)

    def claims(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        return False  # FLUX.1 is the default if no other family claims the file

    def read_lora(self, source: Any, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        options |= {"return_alphas": True, "return_lora_metadata": True}
        state, alphas, header = self.pipeline.lora_state_dict(source, **options)
        return state, alphas or {}, header or {}

    def encode_texts(
        self, pipeline: Any, texts: Sequence[str], device: torch.device, tokens: int
    ) -> tuple[Tensor, Tensor]:
        return pipeline.encode_prompt(prompt=list(texts), device=device, max_sequence_length=tokens)[:2]

    def shift(self, tokens: int, steps: int) -> float:
        return flow.shift_for_tokens(tokens)
