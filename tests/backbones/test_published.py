"""Published adapters, imported: their files, their numbers, and the very step that their authors run."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from fluxsr.backbones.adapter import AdapterConfig, load_config
from fluxsr.backbones.importing import import_adapter
from fluxsr.backbones.licence import NOTHING_GRANTED
from fluxsr.backbones.lora import check_lora, lora_file, read_lora
from fluxsr.backbones.parts import part_config, skeleton
from fluxsr.backbones.places import CONFIG_FILE, ENCODER_FILE, WEIGHTS_FILE
from fluxsr.backbones.prompts import load_prompt
from fluxsr.backbones.published import FILES, ImportOverrides, omgsr_time
from fluxsr.backbones.single_file import flux_dev
from fluxsr.backbones.text import encode_prompts
from fluxsr.cli.main import app
from fluxsr.errors import InputError, ModelError
from fluxsr.hub.contents import CardOverrides, contents
from fluxsr.single import load

# The layers that OMGSR adapts in FLUX.1-dev's transformer and in its autoencoder's encoder, by the ends of their names.
OMGSR = ["x_embedder", "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj"]
OMGSR += ["attn.add_v_proj", "attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj"]
OMGSR += ["ff_context.net.2"]
ENCODER = ["conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out"]
IMAGE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def random_lora(module: Any, targets: list[str], name: str, rank: int = 3) -> Any:
    wrapped = PeftModel(deepcopy(module), LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), name)
    for i, (key, parameter) in enumerate(wrapped.named_parameters()):
        if "lora_B" in key:
            parameter.data.normal_(std=0.2, generator=torch.Generator().manual_seed(i))
    return wrapped


@pytest.fixture(scope="module")
def parts(text_model_folder: Path) -> Any:
    """Transformer and autoencoder of a tiny FLUX.1-dev."""
    return FluxPipeline.from_pretrained(text_model_folder, text_encoder=None, text_encoder_2=None)


@pytest.fixture
def omgsr(parts: Any, tmp_path: Path) -> Path:
    """A folder as OMGSR's training writes it: two folders of PEFT, named after its adapters."""
    folder = tmp_path / "omgsr"
    random_lora(parts.transformer, OMGSR, "flux_adapter").save_pretrained(folder)
    random_lora(parts.vae.encoder, ENCODER, "vae_encoder_adapter").save_pretrained(folder)
    return folder


@pytest.fixture
def community(parts: Any, tmp_path: Path) -> Path:
    """A folder with the files of the community's adapter."""
    folder = tmp_path / "community"
    wrapped = get_peft_model(deepcopy(parts.transformer), LoraConfig(r=4, lora_alpha=4, target_modules=OMGSR[1:4]))
    state = get_peft_model_state_dict(wrapped)
    generator = torch.Generator().manual_seed(5)
    state = {key: torch.randn(value.shape, generator=generator) / 4 for key, value in state.items()}
    layers = {key.removeprefix("base_model.model."): value for key, value in state.items()}
    FluxPipeline.save_lora_weights(folder, transformer_lora_layers=layers)
    torch.save(torch.randn(9, 16, generator=generator), folder / "t5_embedding.pth")
    torch.save(torch.randn(16, generator=generator), folder / "clip_embedding.pth")
    (folder / "FLUX.1-dev-LICENSE.md").write_text("stands for a licence")
    settings = {"lora_rank": 4, "training": {"guidance_scale": 3.5}, "inference": {"T_L": 0.25, "guidance-scale": 1.0}}
    (folder / "training_config.json").write_text(json.dumps(settings))
    return folder


def imported(source: Path, base: Path, out: Path, **options: Any) -> AdapterConfig:
    out.mkdir()
    prompt_folder = options.pop("prompt_folder", None)
    return import_adapter(source, base, out, ImportOverrides(**options), prompt_folder, "cpu")[1]


def step(
    transformer: Any, vae: Any, image: Tensor, prompt: tuple[Tensor, Tensor], t: float, t_seen: float, g: float
) -> Tensor:
    """One step as OMGSR's inference writes it, with the mode of the posterior in place of a sample of it."""
    with torch.no_grad():
        z = (vae.encode(image * 2 - 1).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor
        b, c, h, w = z.shape
        tokens = z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)
        ids = torch.zeros(h // 2, w // 2, 3)
        ids[..., 1] += torch.arange(h // 2)[:, None]
        ids[..., 2] += torch.arange(w // 2)[None]
        states, pooled = prompt
        v = transformer(
            hidden_states=tokens,
            timestep=torch.tensor([t_seen]),
            guidance=torch.tensor([g]),
            pooled_projections=pooled.float(),
            encoder_hidden_states=states.float(),
            txt_ids=torch.zeros(states.shape[1], 3),
            img_ids=ids.reshape(-1, 3),
            return_dict=False,
        )[0]
        tokens = tokens + (0.0 - t) * v
        z = tokens.view(b, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)
        return vae.decode(z / vae.config.scaling_factor + vae.config.shift_factor).sample / 2 + 0.5


def test_omgsr_counts_time_in_a_shifted_schedule() -> None:
    assert omgsr_time(244) == pytest.approx(0.50511, abs=5e-6)
    assert omgsr_time(295) == pytest.approx(0.56959, abs=5e-6)
    raw = torch.linspace(1, 0, 1000, dtype=torch.float64)
    shifted = 1 / (1 + (1 / raw - 1) / torch.tensor(1.15, dtype=torch.float64).exp())
    assert omgsr_time(244) == pytest.approx(float(shifted[-245]), abs=1e-12)


def test_omgsr_runs_as_its_authors_run_it(omgsr: Path, parts: Any, text_model_folder: Path, tmp_path: Path) -> None:
    config = imported(omgsr, text_model_folder, tmp_path / "ours")
    assert (config.t_l, config.guidance, config.prompt) == (pytest.approx(0.50511, abs=5e-6), 1.0, "")
    assert (config.rank, config.alpha, config.tile_size) == (3, 3.0, 1024)
    assert "mid_timestep 244" in config.source and NOTHING_GRANTED in [one["name"] for one in config.licences]

    transformer = PeftModel.from_pretrained(deepcopy(parts.transformer), omgsr / "flux_adapter").merge_and_unload()
    vae = deepcopy(parts.vae)
    vae.encoder = PeftModel.from_pretrained(vae.encoder, omgsr / "vae_encoder_adapter").merge_and_unload()
    encoded = encode_prompts(text_model_folder, [""], torch.device("cpu"), torch.bfloat16)([""])
    prompt = encoded.prompt_embeds, encoded.pooled_prompt_embeds
    # In bfloat16, in which OMGSR was trained and runs, 0.50511 is 0.50390625, and 1000 times that is 504.
    expected = step(transformer.eval(), vae.eval(), IMAGE, prompt, config.t_l, 0.504, 1.0)
    pipeline = load(text_model_folder, adapter=tmp_path / "ours", device="cpu", dtype="fp32")
    assert torch.allclose(pipeline.one_step(IMAGE), expected, atol=1e-5)
    with pytest.raises(InputError, match="must lie between 0 and 999"):
        imported(omgsr, text_model_folder, tmp_path / "late", mid_timestep=999)
    plain = step(parts.transformer, parts.vae, IMAGE, prompt, config.t_l, 0.504, 1.0)
    assert not torch.allclose(plain, expected, atol=1e-2)
    with pytest.raises(ModelError, match=r"wuer5/OMGSR, whose authors state no licence; only they may share"):
        contents(tmp_path / "ours", "somebody/theirs", CardOverrides(base_model="owner/base"))


def test_the_community_s_adapter_runs_with_its_own_embeddings(
    community: Path, parts: Any, text_model_folder: Path, tmp_path: Path
) -> None:
    config = imported(community, text_model_folder, tmp_path / "ours")
    assert (config.t_l, config.guidance, config.rank) == (0.25, 1.0, 4)
    assert (tmp_path / "ours" / "LICENSE.md").read_text() == "stands for a licence"

    transformer = deepcopy(parts.transformer)
    for key, down in load_file(community / WEIGHTS_FILE).items():
        if ".lora_A" in key:
            up = load_file(community / WEIGHTS_FILE)[key.replace("lora_A", "lora_B")]
            name = key.removeprefix("transformer.").split(".lora_A")[0]
            transformer.get_submodule(name).weight.data += up @ down
    prompt = tuple(torch.load(community / f"{name}_embedding.pth")[None] for name in ("t5", "clip"))
    expected = step(transformer.eval(), parts.vae, IMAGE, prompt, 0.25, 0.25, 1.0)
    pipeline = load(text_model_folder, adapter=tmp_path / "ours", device="cpu", dtype="fp32")
    assert torch.allclose(pipeline.one_step(IMAGE), expected, atol=1e-5)


def test_an_adapter_on_the_hub(community: Path, fake_hub: Any, text_model_folder: Path, tmp_path: Path) -> None:
    files = files_of(community)
    fake_hub.repositories["owner/theirs"] = files | {"prompts_10k.json": b"[]", "more/checkpoint.safetensors": b"large"}
    (tmp_path / "ours").mkdir()
    name, config = import_adapter("owner/theirs", text_model_folder, tmp_path / "ours", device="cpu")
    assert (name, config.t_l) == ("community", 0.25)
    fetched = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_symlink() or path.is_file()}
    assert "FLUX.1-dev-LICENSE.md" in fetched and not {"prompts_10k.json", "checkpoint.safetensors"} & fetched


def test_a_plain_lora_on_the_hub(community: Path, fake_hub: Any, text_model_folder: Path, tmp_path: Path) -> None:
    """Its file has any name. Files in folders below it are not fetched."""
    lora = (community / WEIGHTS_FILE).read_bytes()
    fake_hub.repositories["owner/plain"] = {"mine.safetensors": lora, "transformer/model.safetensors": b"large"}
    fake_hub.repositories["owner/empty"] = {"thesis.txt": b""}
    given = ImportOverrides(t_l=0.3, guidance=1.0, prompt="sharp")
    (tmp_path / "ours").mkdir()
    name, config = import_adapter("owner/plain", text_model_folder, tmp_path / "ours", given, device="cpu")
    assert (name, config.t_l, config.source) == ("lora", 0.3, "owner/plain")
    assert (tmp_path / "ours" / WEIGHTS_FILE).read_bytes() == lora
    assert not [*(tmp_path / "cache").rglob("model.safetensors")]
    for source, words in (
        ("owner/empty", "holds nothing, which is no known adapter"),
        ("runs/gone", r"runs/gone is neither a folder here nor a model on the Hub \(or it is private\)"),
        ("my runs/gone", "my runs/gone is neither a folder here nor a model on the Hub"),
        ("runs/gone/far", "no model folder runs/gone/far"),
    ):
        with pytest.raises(ModelError, match=words):
            import_adapter(source, text_model_folder, tmp_path / "none", given, device="cpu")


def test_settings_of_the_community_that_leave_a_doubt(community: Path, text_model_folder: Path, tmp_path: Path) -> None:
    path = community / "training_config.json"
    for settings, words in (
        ({"steps": 3}, r"names no t_l \(it has steps\); give --t-l"),
        ({"a": {"t_l": 0.2}, "b": {"TL": 0.3}}, r"more than once \(a\.t_l = 0\.2, b\.tl = 0\.3\); give --t-l"),
    ):
        path.write_text(json.dumps(settings))
        with pytest.raises(ModelError, match=words):
            imported(community, text_model_folder, tmp_path / words[:5])
    with pytest.raises(InputError, match="only omgsr has a mid_timestep"):
        imported(community, text_model_folder, tmp_path / "step", mid_timestep=244)
    assert imported(community, text_model_folder, tmp_path / "given", t_l=0.4, guidance=2.0).t_l == 0.4


def test_a_plain_lora_takes_the_values_of_the_command_line(
    community: Path, text_model_folder: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "my_lora.safetensors").write_bytes((community / WEIGHTS_FILE).read_bytes())
    for number, (given, words) in enumerate(
        (
            ({}, "give --t-l"),
            ({"t_l": 0.3}, "give --guidance"),
            ({"t_l": 0.3, "guidance": 1.0}, "give --prompt TEXT"),
            ({"t_l": 1.3, "guidance": 1.0, "prompt_folder": community}, "it must lie between 0 and 1"),
        )
    ):
        with pytest.raises(ModelError, match=words):
            imported(plain, text_model_folder, tmp_path / str(number), **given)
    given = {"t_l": 0.3, "guidance": 1.0, "prompt": "sharp", "licence": "mit"}
    config = imported(plain, text_model_folder, tmp_path / "ours", **given)
    assert (config.t_l, config.prompt, config.source) == (0.3, "sharp", "plain")
    assert [one["name"] for one in config.licences] == ["mit"]
    assert load_prompt(tmp_path / "ours").text == "sharp"


def test_licence_texts_of_adapter_and_base_are_both_kept(
    community: Path, text_model_folder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "The Base"
    base.mkdir()
    for part in text_model_folder.iterdir():
        (base / part.name).symlink_to(part)
    for folder, text in ((community, "of the adapter"), (base, "of the base")):
        (folder / "LICENSE.md").write_text(text)
    imported(community, base, tmp_path / "ours")
    texts = {path.name: path.read_text() for path in (tmp_path / "ours").glob("LICENSE*")}
    assert texts == {
        "LICENSE.md": "of the adapter",
        "LICENSE-the-base.md": "of the base",
        "LICENSE-flux.1-dev.md": "stands for a licence",
    }
    imported(tmp_path / "ours", base, tmp_path / "again")
    assert files_of(tmp_path / "again").keys() == files_of(tmp_path / "ours").keys()


def test_strsr_with_a_text(parts: Any, text_model_folder: Path, tmp_path: Path) -> None:
    """Its names are PEFT's, with that of the adapter in them; here on a model of the family that there is."""
    folder = tmp_path / "strsr"
    folder.mkdir()
    wrapped = random_lora(parts.transformer, ["to_q", "to_k"], "default")
    trained = {key: value.detach() for key, value in wrapped.named_parameters() if "lora_" in key}
    torch.save(trained, folder / "state_dict.pth")
    torch.save({"0.weight": torch.zeros(1)}, folder / "projector.pth")
    with pytest.raises(ModelError, match="only the mode with a text runs here"):
        imported(folder, text_model_folder, tmp_path / "none", guidance=1.0)
    config = imported(folder, text_model_folder, tmp_path / "ours", prompt="sharp", guidance=1.0)
    assert (config.t_l, config.tile_size, config.rank) == (0.8, 1024, 3)
    state = load_file(tmp_path / "ours" / WEIGHTS_FILE)
    assert len(state) == len(trained)
    name = "transformer_blocks.0.attn.to_q.lora_A"
    assert torch.equal(state[f"transformer.{name}.weight"], trained[f"base_model.model.{name}.default.weight"])


def test_it_fits_flux_1_dev_at_its_true_size(tmp_path: Path) -> None:
    flux: FluxTransformer2DModel = skeleton(part_config(str(flux_dev()), "transformer"))
    state = {}
    for name, module in flux.named_modules():
        if any(name == end or name.endswith(f".{end}") for end in OMGSR):
            a, b = (1, module.in_features), (module.out_features, 1)
            for key, size in (("A", a), ("B", b)):
                state[f"base_model.model.{name}.lora_{key}.weight"] = torch.zeros(size, dtype=torch.bfloat16)
    save_file(state, tmp_path / "adapter_model.safetensors")
    found, _, _ = read_lora(tmp_path / "adapter_model.safetensors")
    check_lora(flux, found, "here")
    assert len(found) == 2 * (1 + 19 * 12 + 38 * 3)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["adapter", "import", *map(str, arguments), "--device", "cpu"])


def test_the_command_is_idempotent(omgsr: Path, text_model_folder: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "ours", tmp_path / "again"
    result = run(omgsr, "--base", text_model_folder, "-o", out, "--mid-timestep", "295")
    assert result.exit_code == 0 and "omgsr: rank 3, t_l 0.56959" in result.stdout, result.output
    assert "licence of wuer5/OMGSR: no licence stated" in result.stdout
    first = files_of(out)
    assert {CONFIG_FILE, ENCODER_FILE, "prompt_embeds.safetensors", "NOTICE"} < set(first)
    assert run(omgsr, "--base", text_model_folder, "-o", out, "--mid-timestep", "295").exit_code == 0
    assert files_of(out) == first, "the same command gives the same files"
    assert run(out, "--base", text_model_folder, "-o", again).exit_code == 0
    assert files_of(again) == first, "and so does the import of what was imported"
    assert load_config(again).t_l == omgsr_time(295) and lora_file(again)


def test_folders_that_the_command_does_not_touch(omgsr: Path, text_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    for out, words in ((tmp_path / "mine", "holds thesis.txt"), (omgsr, "holds the adapter that is imported")):
        result = run(omgsr, "--base", text_model_folder, "-o", out)
        assert result.exit_code == 1 and words in result.stderr
    with pytest.raises(ModelError) as caught:
        imported(tmp_path / "mine", text_model_folder, tmp_path / "out")
    message = str(caught.value)
    assert "holds thesis.txt, which is no known adapter; known are fluxsr (fluxsr_config.json); omgsr (" in message
    assert "\n" not in message
    assert "training_config.json" in FILES and not [name for name in FILES if name.startswith("*")], (
        "no whole repository"
    )
