"""The FLUX.2 family, [klein] and [dev]: latents, positions, transformer call, folding, names, text encoder, schedule.

klein has other sizes than dev, and embeds no guidance. Its teacher uses classifier-free guidance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers
from diffusers.models.transformers.transformer_flux2 import Flux2Modulation
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from fluxsr.backbones import flux1
from fluxsr.backbones.family import Family, Prompt, folded_class
from fluxsr.backbones.taef2 import AutoencoderTinyFlux2

# Prefixes of the transformer's names in BFL's own checkpoints. All-in-one checkpoints also hold other models.
ORIGINAL = (*flux1.ORIGINAL, "double_stream_modulation_", "single_stream_modulation.")
# Names of layers that FLUX.1 does not have, and the ratio of rows to columns of layers in the original checkpoint.
OWN_LAYERS = re.compile(
    r"to_qkv_mlp_proj|\.linear_(in|out)\b|stream_modulation|time_guidance|single_\w+\.\d+\.attn\.to_out"
)
OWN_RATIOS = {"linear1": 9, "img_mlp.0": 6, "txt_mlp.0": 6, "img_mlp_0": 6, "txt_mlp_0": 6}  # FLUX.1: 7 and 4


class ConstantModulation(nn.Module):
    """Replacement for a Flux2Modulation, which is shared by all blocks of a kind."""

    modulation: Tensor

    def __init__(self, modulation: Tensor) -> None:
        super().__init__()
        self.register_buffer("modulation", modulation.detach().reshape(1, -1).clone())

    def forward(self, _condition: Tensor | None) -> Tensor:
        return self.modulation


def constant(module: Any, condition: Tensor | None) -> nn.Module | None:
    """Return the constant that replaces a shared modulation or the last norm, or None for another module."""
    if not isinstance(module, Flux2Modulation):
        return flux1.constant(module, condition)
    return ConstantModulation(torch.zeros(1, module.linear.out_features) if condition is None else module(condition))


FoldedFlux2Transformer2DModel = folded_class(Flux2Transformer2DModel, "time_guidance_embed", constant)


class Flux2(Family):
    """FLUX.2 as a `Family`, which documents all members.

    Latents have the size of tokens, (B,128,H/16,W/16): the autoencoder's 32 channels at H/8 are packed by 2x2 and
    then normalised, because the statistics differ between the four positions in a token.
    """

    transformer = Flux2Transformer2DModel
    folded = FoldedFlux2Transformer2DModel
    autoencoders = (AutoencoderKLFlux2, AutoencoderTinyFlux2)
    pipeline = Flux2KleinPipeline
    text_parts = ("text_encoder", "tokenizer")
    patch = 1
    blocks = {"double": "transformer_blocks", "single": "single_transformer_blocks"}
    embedder = "time_guidance_embed"
    # All linear layers of the blocks. In a double-stream block "attn.to_out" is a list, which add_lora skips.
    lora_targets = (
        *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")),
        *("attn.to_add_out", "ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
        *("attn.to_qkv_mlp_proj", "attn.to_out"),
    )

    def normalise(self, vae: Any, latents: Tensor) -> Tensor:
        mean, std = self._statistics(vae)
        return (F.pixel_unshuffle(latents, vae.config.patch_size[0]) - mean) / std

    def denormalise(self, vae: Any, z: Tensor) -> Tensor:
        mean, std = self._statistics(vae)
        return F.pixel_shuffle(z * std + mean, vae.config.patch_size[0])

    def _statistics(self, vae: Any) -> tuple[Tensor | float, Tensor | float]:
        """Return mean and standard deviation of the packed latents, (1,C,1,1) each, in float32."""
        if not hasattr(vae, "bn"):  # TAEF2 returns normalised latents
            return 0.0, 1.0
        mean, variance = (x.float().view(1, -1, 1, 1) for x in (vae.bn.running_mean, vae.bn.running_var))
        return mean, (variance + vae.config.batch_norm_eps).sqrt()

    def latent_pixels(self, vae: Any) -> int:
        return 2 ** (len(vae.config.block_out_channels) - 1) * vae.config.patch_size[0]

    def latent_channels(self, config: Any) -> int:
        return config.in_channels

    def velocity(self, transformer: Any, z_t: Tensor, t: Tensor, prompt: Prompt, guidance: float | None) -> Tensor:
        (batch, _, height, width), dtype, device = z_t.shape, transformer.dtype, z_t.device
        embeds = prompt.prompt_embeds.to(device, dtype)
        tokens = transformer(
            hidden_states=z_t.flatten(2).transpose(1, 2).to(dtype),
            encoder_hidden_states=embeds.expand(batch, -1, -1),
            timestep=t,  # the transformer multiplies time and guidance by 1000
            guidance=None if guidance is None else torch.full((batch,), guidance, device=device),
            img_ids=positions(1, height, width, 1, device=device),
            txt_ids=positions(1, 1, 1, embeds.shape[1], device=device),
        ).sample
        return tokens.float().transpose(1, 2).unflatten(2, (height, width))

    def embeds_guidance(self, config: Any) -> bool:
        return bool(config.get("guidance_embeds", True))

    def classifier_free(self, config: Any) -> bool:
        return not self.embeds_guidance(config)

    def prompt_widths(self, config: Any) -> tuple[int, int]:
        return config["joint_attention_dim"], 0

    def tap(self, block: Any, text_tokens: int, collect: Callable[[Tensor], None]) -> RemovableHandle:
        """As in FLUX.1: after the output projection of a double-stream block, the attention itself of a single-stream.

        The latter exists only inside the processor, as the first part of what the shared output projection takes.
        """
        if isinstance(block.attn.to_out, nn.ModuleList):
            return block.attn.register_forward_hook(lambda _module, _inputs, outputs: collect(outputs[0]))
        width = block.attn.inner_dim
        return block.attn.to_out.register_forward_pre_hook(
            lambda _module, inputs: collect(inputs[0][:, text_tokens:, :width])
        )

    @torch.no_grad()
    def condition(self, transformer: Any, t: float, guidance: float | None, pooled: Tensor) -> Tensor:
        embedder = transformer.time_guidance_embed
        scales = [(embedder.timestep_embedder, t)]
        scales += [] if guidance is None else [(embedder.guidance_embedder, guidance)]
        embedded = [
            embed(embedder.time_proj(torch.tensor([1000 * scale], device=pooled.device)).to(pooled.dtype))
            for embed, scale in scales
        ]
        return sum(embedded[1:], embedded[0])

    def constant(self, module: nn.Module, condition: Tensor | None) -> nn.Module | None:
        return constant(module, condition)

    def is_modulation(self, name: str) -> bool:
        return bool(re.search(r"^time_guidance_embed\b|_stream_modulation\w*\.linear\b|^norm_out\.linear\b", name))

    def convert(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        names = {name.removeprefix("model.diffusion_model."): name for name in weights}
        if "single_stream_modulation.lin.weight" not in names:
            return weights
        found = {short: weights[name] for short, name in names.items() if short.startswith(ORIGINAL)}
        return convert_flux2_transformer_checkpoint_to_diffusers(found)

    def claims(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        def is_own(name: str, shape: Sequence[int]) -> bool:
            down = shapes.get(name.replace("lora_B", "lora_A").replace("lora_up", "lora_down"), ())
            ratio = next((ratio for layer, ratio in OWN_RATIOS.items() if layer in name), 0)
            return len(shape) == len(down) == 2 and shape[0] == ratio * down[1]

        return any(OWN_LAYERS.search(name) or is_own(name, shape) for name, shape in shapes.items())

    def read_lora(self, source: Any, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        state, header = self.pipeline.lora_state_dict(source, return_lora_metadata=True, **options)
        alphas = {name: float(state.pop(name)) for name in list(state) if name.endswith(".alpha")}
        return state, alphas, header or {}

    def encode_texts(
        self, pipeline: Any, texts: Sequence[str], device: torch.device, tokens: int
    ) -> tuple[Tensor, Tensor]:
        embeds = pipeline.encode_prompt(prompt=list(texts), device=device, max_sequence_length=tokens)[0]
        return embeds, embeds.new_zeros(len(texts), 0)

    def shift(self, tokens: int, steps: int) -> float:
        return compute_empirical_mu(tokens, steps)


def positions(*lengths: int, device: torch.device | None = None) -> Tensor:
    """Return the positions (N,4) = (time, row, column, word) of a grid with these lengths."""
    return torch.cartesian_prod(*(torch.arange(length, device=device) for length in lengths)).float()
