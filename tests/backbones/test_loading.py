from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file, save_file

import fluxsr
from fluxsr.backbones import loading, lora, places
from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.backbones.flux1 import FoldedFluxTransformer2DModel
from fluxsr.backbones.folding import fold
from fluxsr.backbones.memory import Plan
from fluxsr.backbones.parts import load_part
from fluxsr.backbones.places import WEIGHTS_FILE
from fluxsr.backbones.prompts import FILE, random_prompt
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import InputError, ModelError

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")


class Touch:
    """A pickle that creates a file when it is unpickled carelessly."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder, to be damaged."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


@pytest.fixture
def adapter_folder(make_adapter: Callable[..., Path]) -> Path:
    """An adapter of the tiny model, with config and prompt, whose t_l is not the model's."""
    return make_adapter(t_l=0.5)


def load(model: Any, **options: Any) -> loading.Backbone:
    return loading.load(model, device="cpu", dtype="fp32", **options)


def error_of(model: Any, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load(model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def step(backbone: loading.Backbone) -> torch.Tensor:
    z = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return velocity(backbone.transformer, z, backbone.config.t_l, backbone.prompt, backbone.config.guidance)


# What is loaded


def test_a_model_is_loaded_folded_and_equal_to_the_unfolded(model_folder: Path, transformer: Any, vae: Any) -> None:
    folded, plain = load(model_folder), load(model_folder, folded=False)
    assert isinstance(folded.transformer, FoldedFluxTransformer2DModel)
    assert type(plain.transformer) is type(transformer)
    assert not folded.transformer.training and not folded.vae.training
    torch.testing.assert_close(step(folded), step(plain), rtol=1e-5, atol=1e-5)
    for name, tensor in transformer.state_dict().items():
        assert torch.equal(plain.transformer.state_dict()[name], tensor), name
    for name, tensor in vae.state_dict().items():
        assert torch.equal(plain.vae.state_dict()[name], tensor), name


def test_an_adapter_is_fused_before_folding(model_folder: Path, adapter_folder: Path) -> None:
    with_adapter = load(model_folder, adapter=adapter_folder)
    assert with_adapter.config.t_l == 0.5 and with_adapter.transformer.config.folded_t == 0.5
    assert not [name for name in with_adapter.transformer.state_dict() if "lora" in name]
    unfolded = load(model_folder, adapter=adapter_folder, folded=False)
    torch.testing.assert_close(step(with_adapter), step(unfolded), rtol=1e-5, atol=1e-5)
    without = load(model_folder)
    without.config.t_l = 0.5
    assert not torch.allclose(step(unfolded), step(without), atol=1e-2)


def test_the_model_s_own_adapter_is_taken_unless_it_is_refused(folder: Path, adapter_folder: Path) -> None:
    shutil.copytree(adapter_folder, folder, dirs_exist_ok=True)
    assert torch.equal(step(load(folder)), step(load(folder, adapter=adapter_folder)))
    base = load(folder, adapter=False)
    assert base.config.t_l == 0.5, "prompt and config are still the adapter's"
    assert not torch.allclose(step(base), step(load(folder)), atol=1e-2)


def test_an_offloaded_transformer_computes_the_same(model_folder: Path, adapter_folder: Path) -> None:
    offloaded = load(model_folder, adapter=adapter_folder, offload=True)
    assert torch.equal(step(offloaded), step(load(model_folder, adapter=adapter_folder)))
    hooks = [m for m in offloaded.transformer.modules() if getattr(m, "_diffusers_hook", None)]
    assert len(hooks) > 2, "block by block"


def test_the_plan_is_made_from_configurations_alone(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("load_part", "assemble"):
        monkeypatch.setattr(loading, part, None)
    made = loading.plan_for(model_folder, None, CPU, torch.float32, "auto")
    assert made == Plan(torch.float32, "cpu", 512), "nothing is saved on a CPU"
    monkeypatch.setattr(loading, "free_bytes", lambda _device: 6 * 2**30)
    made = loading.plan_for(model_folder, None, CPU, torch.float32, "auto")
    assert (made.quantize, made.offload, made.tile_size, made.batch_size) == ("none", False, 512, 4)
    with pytest.raises(InputError, match="0.1 GiB are free on cpu"):
        monkeypatch.setattr(loading, "free_bytes", lambda _device: 10**8)
        loading.plan_for(model_folder, None, CPU, torch.float32, "auto")


@pytest.mark.parametrize("units", [True, False])
def test_bfloat16_takes_chunked_attention_on_a_cpu_that_has_units_for_it(
    model_folder: Path, units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them the products are some 40 times slower than flash attention, and less exact."""
    monkeypatch.setattr(loading, "has_bf16_units", lambda: units)
    backbone = loading.load(model_folder, device="cpu", dtype="bf16")
    kinds = {type(processor).__name__ for processor in backbone.transformer.attn_processors.values()}
    assert kinds == {"ChunkedFluxAttnProcessor" if units else "FluxAttnProcessor"}
    assert {x.dtype for x in backbone.transformer.state_dict().values()} == {torch.bfloat16}
    reference = step(load(model_folder))
    assert (step(backbone) - reference).norm() / reference.norm() < 0.05


def test_base_models_are_saved_unfolded_and_loaded_to_the_bit(
    transformer: Any, vae: Any, prompt: Any, tmp_path: Path
) -> None:
    loading.save_base(loading.Backbone(transformer, vae, prompt), tmp_path)
    base = loading.load_base(tmp_path, CPU, torch.float32)
    for name, tensor in transformer.state_dict().items():
        assert torch.equal(base.transformer.state_dict()[name], tensor), name
    assert torch.equal(base.prompt.prompt_embeds, prompt.prompt_embeds)
    assert not any(p.requires_grad for p in base.vae.parameters())


def test_a_folded_transformer_is_no_base(model_folder: Path, tmp_path: Path) -> None:
    fluxsr.load(model_folder, device="cpu", dtype="fp32").save_pretrained(tmp_path)
    for load in (loading.load_base, loading.load_transformer):
        with pytest.raises(ModelError, match="is folded, so its time is fixed; use the unfolded model"):
            load(tmp_path, CPU, torch.float32)


def test_a_sharded_transformer_is_loaded_to_the_bit(folder: Path, transformer: Any) -> None:
    _shard(folder, transformer)
    loaded = load_part(folder, "transformer", torch.float32)
    assert loaded.state_dict().keys() == transformer.state_dict().keys()
    for name, tensor in transformer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_loaded_pipeline_is_saved_to_the_same_bytes(model_folder: Path, tmp_path: Path) -> None:
    for one, other in ((model_folder, tmp_path / "a"), (tmp_path / "a", tmp_path / "b")):
        fluxsr.load(one, device="cpu", dtype="fp32").save_pretrained(other)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert {WEIGHTS, places.COMPONENT_FILE, places.INDEX_FILE} <= {p.as_posix() for p in files}
    for file in files:
        one, other = (tmp_path / x / file for x in "ab")
        if file.name == "config.json":  # diffusers notes the folder it came from
            one, other = (json.loads(x.read_text()) | {"_name_or_path": ""} for x in (one, other))
            assert one == other, file
        elif file.name != "model_index.json":
            assert one.read_bytes() == other.read_bytes(), file
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pictures = [
        fluxsr.load(path, device="cpu", dtype="fp32")(image, 2, output_type="pt").images
        for path in (tmp_path / "a", tmp_path / "b")
    ]
    assert torch.equal(*pictures)


# What cannot be loaded


def test_no_such_folder() -> None:
    assert "no model folder ./nowhere; pass an existing folder or file, a Hub id" in error_of("./nowhere")
    assert "no model folder" in error_of(Path("owner/name"))


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_missing_part(part: str, folder: Path) -> None:
    shutil.rmtree(folder / part)
    assert f"no {part}/config.json in {folder}" in error_of(folder)


@pytest.mark.parametrize(
    ("name", "words"), [(places.INDEX_FILE, "no fluxsr_config.json in"), (places.COMPONENT_FILE, "no fixed prompt in")]
)
def test_a_missing_config_or_prompt(name: str, words: str, folder: Path) -> None:
    (folder / name).unlink()
    assert words in error_of(folder)


def test_an_unknown_class(folder: Path) -> None:
    edit_json(folder / "transformer/config.json", _class_name="SanaTransformer2DModel")
    message = error_of(folder)
    assert "class SanaTransformer2DModel; known classes are FluxTransformer2DModel" in message


@pytest.mark.parametrize("text", ["{", "[]", ""], ids=["truncated", "list", "empty"])
def test_an_unreadable_part_config(text: str, folder: Path) -> None:
    (folder / "transformer/config.json").write_text(text)
    assert "cannot load transformer of" in error_of(folder)


def test_missing_weights(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    for name in ("proj_out.bias", "x_embedder.weight"):
        del weights[name]
    save_file(weights, folder / WEIGHTS)
    assert "lacks 2 weights, the first is 'proj_out.bias'" in error_of(folder)


def test_missing_weights_file(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert "cannot load transformer of" in error_of(folder)


def test_missing_constants_of_a_folded_model(folder: Path, tmp_path: Path) -> None:
    fluxsr.load(folder, device="cpu", dtype="fp32").save_pretrained(tmp_path / "folded")
    path = tmp_path / "folded" / WEIGHTS
    save_file({name: x for name, x in load_file(path).items() if name != "norm_out.modulation"}, path)
    assert "lacks 1 weights, the first is 'norm_out.modulation'" in error_of(tmp_path / "folded")


def test_misshaped_weights(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {"x_embedder.weight": torch.zeros(401, 403)}, folder / WEIGHTS)
    message = error_of(folder)
    assert "x_embedder.weight" in message and "gated" not in message  # 401 and 403 are not always HTTP's


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 64])
def test_corrupt_weights(content: bytes, folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(content)
    assert "cannot load transformer of" in error_of(folder)


def test_a_truncated_file(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    assert "cannot load transformer of" in error_of(folder)


def test_a_missing_shard(folder: Path, transformer: Any) -> None:
    shards = _shard(folder, transformer)
    shards[0].unlink()
    assert shards[0].name in error_of(folder)


def test_a_shard_without_a_weight_that_the_index_promises(folder: Path, transformer: Any) -> None:
    shard = _shard(folder, transformer)[0]
    weights = load_file(shard)
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, shard)
    assert f"lacks 1 weights, the first is '{name}'" in error_of(folder)


def test_code_in_pickled_weights_never_runs(folder: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    (folder / WEIGHTS).unlink()
    torch.save({"proj_out.bias": Touch(touched)}, folder / "transformer/diffusion_pytorch_model.bin")
    assert "cannot load transformer of" in error_of(folder)
    torch.save(Touch(touched), folder / WEIGHTS_FILE)
    with pytest.raises(ModelError, match="cannot be read"):
        lora.read_lora(folder / WEIGHTS_FILE)
    assert not touched.exists()


def test_code_in_a_model_folder_never_runs(folder: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    for place in (folder, folder / "transformer"):
        (place / "evil.py").write_text(f"open({str(touched)!r}, 'w')\nclass Model: ...\n")
    edit_json(folder / "model_index.json", _class_name=["evil", "Model"], transformer=["evil", "Model"])
    edit_json(folder / "transformer/config.json", auto_map={"AutoModel": "evil.Model"})
    load(folder)
    assert not touched.exists()


def test_a_prompt_of_another_width(folder: Path) -> None:
    random_prompt(3, 24, torch.Generator().manual_seed(0)).save(folder)
    assert f"prompt in {folder} has widths (24, 24); this transformer needs (16, 16)" in error_of(folder)


def test_an_adapter_without_weights(model_folder: Path, adapter_folder: Path) -> None:
    (adapter_folder / WEIGHTS_FILE).unlink()
    assert f"no {WEIGHTS_FILE} in {adapter_folder}" in error_of(model_folder, adapter=adapter_folder)
    assert WEIGHTS_FILE in error_of(model_folder, adapter=True)


def test_a_model_that_embeds_guidance_needs_it_in_the_config(
    build: Callable[..., Any], vae: Any, prompt: Any, tmp_path: Path
) -> None:
    base = loading.Backbone(build(guidance_embeds=True), vae, prompt)
    loading.save_base(base, tmp_path)
    assert "has no guidance, but this transformer embeds one" in error_of(tmp_path)
    edit_json(tmp_path / places.CONFIG_FILE, guidance=3.5)
    assert load(tmp_path).transformer.config.folded_guidance == 3.504  # as a training in bfloat16 saw it
    edit_json(tmp_path / places.CONFIG_FILE, train_dtype="fp32")
    assert load(tmp_path).transformer.config.folded_guidance == 3.5


@pytest.mark.parametrize(
    ("train_dtype", "folded_guidance", "fits"),
    [("bf16", 3.504, True), ("bf16", 3.5, False), ("fp32", 3.5, True)],
)
def test_a_folded_model_fits_a_config_that_wants_what_it_is_folded_at(
    train_dtype: str,
    folded_guidance: float,
    fits: bool,
    build: Callable[..., Any],
    vae: Any,
    prompt: Any,
    tmp_path: Path,
) -> None:
    folded = fold(build(guidance_embeds=True), 0.25, folded_guidance, prompt.pooled_prompt_embeds)
    config = AdapterConfig(guidance=3.5, train_dtype=train_dtype)
    loading.save_base(loading.Backbone(folded, vae, prompt, config), tmp_path)
    if fits:
        load(tmp_path)
    else:
        assert f"folded at t, guidance = (0.25, {folded_guidance})" in error_of(tmp_path)


def test_an_adapter_for_another_time_does_not_fit_a_folded_model(
    model_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    fluxsr.load(model_folder, device="cpu", dtype="fp32").save_pretrained(tmp_path / "folded")
    message = error_of(tmp_path / "folded", adapter=adapter_folder)  # 0.25 and 0.5
    assert "folded at t, guidance = (0.25, None)" in message and "use the unfolded model" in message


def test_a_prompt_of_the_same_width_does_not_fit_a_model_folded_for_another(model_folder: Path, tmp_path: Path) -> None:
    """The pooled prompt is in the constants, so another one would change nothing, silently."""
    fluxsr.load(model_folder, device="cpu", dtype="fp32").save_pretrained(tmp_path)
    load(tmp_path)
    random_prompt(3, 16, torch.Generator().manual_seed(7)).save(tmp_path)
    assert "folded with another prompt than" in error_of(tmp_path)


def test_missing_bundled_weights_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(places.resources, "files", lambda _package: tmp_path)
    assert "bundled weights are missing" in error_of("bundled")


# The Hub, without a network


def _hub_error(kind: str) -> Exception:
    from huggingface_hub import errors

    message = "401 Client Error.\n\nAccess to model owner/name is restricted."
    return getattr(errors, kind)(message, response=MagicMock(status_code=401))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "owner/name is gated; accept its licence at https://huggingface.co/owner/name, then run"),
        ("RepositoryNotFoundError", "owner/name is neither a folder here nor a model on the Hub (or it is private)"),
    ],
)
@pytest.mark.parametrize("which", ["model", "adapter"])
def test_a_repository_that_does_not_open(
    which: str,
    kind: str,
    message: str,
    model_folder: Path,
    adapter_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise _hub_error(kind)

    monkeypatch.setattr("diffusers.configuration_utils.hf_hub_download", refuse)
    monkeypatch.setattr("fluxsr.backbones.places.snapshot_download", refuse)
    if which == "model":
        assert message in error_of("owner/name", adapter=adapter_folder)
    else:
        assert message in error_of(model_folder, adapter="owner/name")


def test_an_adapter_s_repository_is_not_downloaded_whole(
    model_folder: Path, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import filter_repo_objects

    repository = [
        *(path.name for path in adapter_folder.iterdir()), "t5_embedding.pth", "clip_embedding.pth",
        "transformer/config.json", WEIGHTS, "flux1-dev.safetensors", "text_encoder/model.safetensors",
        "checkpoint-100/pytorch_lora_weights.safetensors", "prompts_10k.json",
    ]  # fmt: skip
    fetched: list[str] = []

    def snapshot(_repository: str, allow_patterns: list[str], **_options: Any) -> str:
        fetched.extend(filter_repo_objects(repository, allow_patterns=allow_patterns))
        return str(adapter_folder)

    monkeypatch.setattr("fluxsr.backbones.places.snapshot_download", snapshot)
    assert load(model_folder, adapter="owner/name").config.t_l == 0.5
    wanted = {places.CONFIG_FILE, WEIGHTS_FILE, FILE, "t5_embedding.pth", "clip_embedding.pth"}
    assert set(fetched) == wanted


def _shard(folder: Path, transformer: Any) -> list[Path]:
    """Save the transformer as FLUX.1-dev is published: an index and several files."""
    shutil.rmtree(folder / "transformer")
    transformer.save_pretrained(folder / "transformer", max_shard_size="20KB")
    assert (folder / "transformer/diffusion_pytorch_model.safetensors.index.json").is_file()
    shards = sorted((folder / "transformer").glob("*-of-*.safetensors"))
    assert len(shards) > 2
    return shards
