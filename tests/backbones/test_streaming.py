"""Block by block is the same as all at once, in less memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fluxsr.backbones.flux1 import Flux1, FoldedFluxTransformer2DModel
from fluxsr.backbones.folding import fold
from fluxsr.backbones.lora import add_lora, fuse_lora, save_lora
from fluxsr.backbones.parts import load_part, part_config, skeleton
from fluxsr.backbones.quantize import declare, quantize_, scheme_of
from fluxsr.backbones.streaming import has_safetensors, stream, weights_in
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import ModelError

T, GUIDANCE = 0.25, 3.5
CPU = torch.device("cpu")
MODULATION = ("norm1.linear", "norm_out.linear", "text_embedder.linear_1")


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that exist at a time, of those that operations make while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.peak, self._live = 0, {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, out)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu" and type(tensor) is torch.Tensor:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, found: torch.UntypedStorage) -> None:
        storage = StorageWeakRef(found)
        known = self._live.get(storage.cdata)
        if known and not known[0].expired():
            return
        self._live = {key: value for key, value in self._live.items() if not value[0].expired()}
        self._live[storage.cdata] = (storage, found.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))


@pytest.fixture
def base(build: Callable[..., Any], tmp_path: Path) -> Path:
    """A folder with a transformer that embeds a guidance, in float32 and in shards."""
    build(guidance_embeds=True).save_pretrained(tmp_path / "transformer", max_shard_size="60KB")
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 1
    return tmp_path


@pytest.fixture
def lora(build: Callable[..., Any], tmp_path: Path) -> Path:
    """An adapter of all of the transformer, modulation and embedder of conditions too."""
    wrapped = build(guidance_embeds=True)
    add_lora(wrapped, rank=2, alpha=4, targets=(*Flux1.lora_targets, *MODULATION))
    for i, (name, parameter) in enumerate(wrapped.named_parameters()):
        if "lora_B" in name:
            parameter.data.normal_(std=0.2, generator=torch.Generator().manual_seed(i))
    save_lora(wrapped, tmp_path, torch.float32)
    return tmp_path


def streamed(base: Path, prompt: Any, dtype: torch.dtype = torch.float32, folded: bool = True, **options: Any) -> Any:
    at = (T, GUIDANCE, prompt.pooled_prompt_embeds) if folded else None
    empty = skeleton(part_config(base, "transformer"))
    return stream(empty, weights_in(base / "transformer"), dtype, CPU, at=at, **options).eval()


def at_once(base: Path, prompt: Any, dtype: torch.dtype = torch.float32, folded: bool = True, **options: Any) -> Any:
    transformer = load_part(base, "transformer", dtype)
    if options.get("adapter"):
        fuse_lora(transformer, options["adapter"])
    if folded:
        transformer = fold(transformer, T, GUIDANCE, prompt.pooled_prompt_embeds)
    quantize_(transformer, options.get("scheme"))
    declare(transformer, options.get("scheme"))
    return transformer.eval()


@pytest.mark.parametrize(("dtype", "folded"), [(torch.float32, True), (torch.bfloat16, True), (torch.bfloat16, False)])
def test_every_weight_is_that_of_the_road_all_at_once(
    base: Path, lora: Path, prompt: Any, dtype: torch.dtype, folded: bool
) -> None:
    one = streamed(base, prompt, dtype, folded, adapter=lora)
    other = at_once(base, prompt, dtype, folded, adapter=lora)
    assert isinstance(one, FoldedFluxTransformer2DModel) == folded and type(one) is type(other)
    assert dict(one.config) | {"_name_or_path": ""} == dict(other.config) | {"_name_or_path": ""}
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, tensor in other.state_dict().items():
        assert torch.equal(one.state_dict()[name], tensor), name
    assert getattr(one, "peft_config", None) is None


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantized_weights_compute_the_same(base: Path, prompt: Any, latents: torch.Tensor, kind: str) -> None:
    with torch.no_grad():
        one, other = (
            velocity(road(base, prompt, scheme=scheme_of(kind, CPU, torch.float32)), latents, T, prompt, GUIDANCE)
            for road in (streamed, at_once)
        )
        assert torch.equal(one, other)


def test_a_file_is_never_held_beside_what_becomes_of_it(build: Callable[..., Any], prompt: Any, tmp_path: Path) -> None:
    """The peak is the final size and the largest block, not the original."""
    build(num_layers=6, num_single_layers=12).to(torch.bfloat16).save_pretrained(tmp_path / "transformer")
    weights = weights_in(tmp_path / "transformer")

    def of(name: str) -> int:  # in float32, the format that is asked for below: nothing can be a view of the file
        return sum(weights[key].numel() * 4 for key in weights if key.startswith(name))

    empty, at = skeleton(part_config(tmp_path, "transformer")), (T, None, prompt.pooled_prompt_embeds)
    with LiveBytes() as memory:
        folded = stream(empty, weights, torch.float32, CPU, at=at)
    with LiveBytes() as control:
        fold(load_part(tmp_path, "transformer", torch.float32), *at)
    assert control.peak > of("")
    final = sum(tensor.nbytes for tensor in folded.state_dict().values())
    assert final < 0.75 * of("")
    # a block is in memory in both formats while it is cast
    assert final < memory.peak < final + 1.6 * of("transformer_blocks.0.") < 0.9 * of("")


def test_what_is_misshaped_is_named(base: Path) -> None:
    empty = skeleton(part_config(base, "transformer") | {"joint_attention_dim": 24})
    with pytest.raises(ModelError, match=r"embedder.weight has shape \[32, 16\]; the transformer needs \[32, 24\]"):
        stream(empty, weights_in(base / "transformer"), torch.float32, CPU)


def test_only_safetensors_are_streamed(base: Path, tmp_path: Path) -> None:
    assert has_safetensors(base / "transformer")
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "diffusion_pytorch_model.bin").touch()
    assert not has_safetensors(tmp_path / "pickles")
