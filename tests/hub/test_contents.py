"""What goes to the Hub with the weights: a card that is complete, the base's licence, and a notice; or a refusal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load

from fluxsr.backbones.licence import flux_dev, write_notice
from fluxsr.backbones.places import CONFIG_FILE, PEFT_FILES, WEIGHTS_FILE
from fluxsr.backbones.prompts import FILE, FixedPrompt
from fluxsr.errors import InputError, ModelError
from fluxsr.hub.contents import CardOverrides, contents

REPO = "somebody/my-adapter"
FLUX = "black-forest-labs/FLUX.1-dev"
MIT = [{"model": "owner/base", "name": "mit"}]
# Not the licence's text, which is Black Forest Labs' to write: words that it and its like have.
TEXT = "stands for the FLUX.1 [dev] Non-Commercial License\n"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("fluxsr.hub.contents.hf_hub_download", refuse)
    monkeypatch.setattr("fluxsr.backbones.licence.hf_hub_download", refuse)


@pytest.fixture
def flux(make_adapter: Callable[..., Path], offline: None) -> Path:
    """An adapter that says it is FLUX.1-dev's, as training exports it."""
    folder = make_adapter(base=FLUX, guidance=3.5, prompt="a sharp photograph", licences=[flux_dev(FLUX).as_dict()])
    write_notice(folder, flux_dev(FLUX))
    return folder


def text_of(files: dict[str, Path | bytes], name: str) -> str:
    content = files[name]
    return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")


def head_of(files: dict[str, Path | bytes]) -> dict[str, Any]:
    return dict(yaml.safe_load(text_of(files, "README.md").split("---\n")[1]))


def refusal(kind: type[Exception], *arguments: Any) -> str:
    with pytest.raises(kind) as caught:
        contents(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_card_of_a_flux_adapter_is_complete(flux: Path, tmp_path: Path) -> None:
    (flux / "LICENSE.md").write_text(TEXT)
    (tmp_path / "recipe.yaml").write_text("stage: distill\nrank: 2\n")
    (tmp_path / "results.md").write_text("| PSNR |\n| --- |\n| 29.47 |\n")
    overrides = CardOverrides(recipe=tmp_path / "recipe.yaml", results=tmp_path / "results.md")
    files = contents(flux, REPO, overrides)
    assert head_of(files) == {
        "pipeline_tag": "image-to-image",
        "library_name": "fluxsr",
        "license": "other",
        "license_name": "flux-1-dev-non-commercial-license",
        "license_link": "LICENSE.md",
        "base_model": FLUX,
        "base_model_relation": "adapter",
        "tags": ["fluxsr", "super-resolution", "one-step", "flow-matching", "lora"],
    }
    card = text_of(files, "README.md")
    for words in (
        f'fluxsr.load("{FLUX}", adapter="{REPO}")', f"--model {FLUX} --adapter {REPO}", "| 0.25 |",
        "| rank | 2 |", "| prompt | a sharp photograph |", "| guidance | 3.5 |", "rank: 2\n```", "| 29.47 |",
        "This is a modified work.",
        "Non-commercial use only.", "[LICENSE.md](LICENSE.md), [NOTICE](NOTICE)", "Detail is invented, not recovered",
    ):  # fmt: skip
        assert words in card, words
    assert "None" not in card and "{{" not in card and "\n\n\n" not in card
    assert text_of(files, "LICENSE.md") == TEXT
    notice = text_of(files, "NOTICE")
    assert "modified work" in notice and "licensed by Black Forest Labs" in notice and notice.count(FLUX) == 2
    assert set(files) == {"README.md", "LICENSE.md", "NOTICE", CONFIG_FILE, FILE, WEIGHTS_FILE}


def test_flux_dev_s_licence_must_come_with_it(flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "give LICENSE.md of https://huggingface.co/" in refusal(ModelError, flux, REPO)
    (flux / "LICENSE").write_text("Apache License, Version 2.0")
    assert "no text of it was found" in refusal(ModelError, flux, REPO), "another licence is none of it"
    (tmp_path / "other.md").write_text("The MIT License")
    other = CardOverrides(license_file=tmp_path / "other.md")
    assert "no text of it was found" in refusal(ModelError, flux, REPO, other)
    assert "cannot be read" in refusal(InputError, flux, REPO, CardOverrides(license_file=tmp_path / "none.md"))
    (tmp_path / "text.md").write_text(TEXT)
    files = contents(flux, REPO, CardOverrides(license_file=tmp_path / "text.md"))
    assert text_of(files, "LICENSE.md") == TEXT and head_of(files)["license_link"] == "LICENSE.md"
    assert "LICENSE" in files, "of other parts"
    asked: list[Any] = []
    fetch = lambda *request, **_: asked.append(request) or str(tmp_path / "text.md")  # noqa: E731
    monkeypatch.setattr("fluxsr.hub.contents.hf_hub_download", fetch)
    assert text_of(contents(flux, REPO), "LICENSE.md") == TEXT and asked == [(FLUX, "LICENSE.md")]


@pytest.mark.parametrize("sign", ["name", "shape", "record"])
def test_flux_dev_is_known_by_any_sign(sign: str, make_adapter: Callable[..., Path], offline: None) -> None:
    """An adapter of older versions, or made elsewhere, records no licence; its notice is written all the same."""
    config: dict[str, Any] = {"name": {"base": FLUX}, "shape": {"base": "o/b", "guidance": 3.5}, "record": {}}[sign]
    if sign == "record":
        config = {"base": "o/b", "licences": [{"model": "o/teacher", "name": "flux-1-dev-non-commercial-license"}]}
    folder = make_adapter(**config)
    if sign == "shape":
        FixedPrompt(torch.zeros(1, 2, 4096), torch.zeros(1, 768)).save(folder)
    assert "must include its licence" in refusal(ModelError, folder, REPO)
    (folder / "LICENSE.md").write_text(TEXT)
    files = contents(folder, REPO)
    assert head_of(files)["license_name"] == "flux-1-dev-non-commercial-license"
    assert "They are a modified work" in text_of(files, "NOTICE")


def test_other_terms_are_those_of_what_it_was_made_from(make_adapter: Callable[..., Path], offline: None) -> None:
    house = {"model": "o/house", "name": "House Terms", "url": "https://example.org/terms"}
    cases: list[tuple[list[dict[str, str]], dict[str, str]]] = [
        (MIT, {"license": "mit"}),
        ([house], {"license": "other", "license_name": "house-terms", "license_link": house["url"]}),
        ([*MIT, house], {"license": "other", "license_name": "see-notice", "license_link": "NOTICE"}),
        ([], {}),
    ]
    for number, (licences, expected) in enumerate(cases):
        folder = make_adapter(str(number), base="owner/base", licences=licences)
        head = head_of(contents(folder, REPO))
        assert {key: value for key, value in head.items() if key.startswith("license")} == expected
    assert head_of(contents(folder, REPO, CardOverrides(license="apache-2.0")))["license"] == "apache-2.0"
    assert "leave out the licence of your own" in refusal(
        InputError, make_adapter("own", base="owner/base", licences=MIT), REPO, CardOverrides(license="apache-2.0")
    )


def test_an_adapter_needs_a_base_that_others_can_have(make_adapter: Callable[..., Path], offline: None) -> None:
    folder = make_adapter(base="tiny")
    assert "calls the base 'tiny', which is no Hub id; give the base's" in refusal(ModelError, folder, REPO)
    assert "'x' is no Hub id" in refusal(ModelError, folder, REPO, CardOverrides(base_model="x"))
    assert head_of(contents(folder, REPO, CardOverrides(base_model="owner/base")))["base_model"] == "owner/base"
    files = contents(folder, REPO, CardOverrides(base_model="bundled"))
    assert "base_model" not in head_of(files) and head_of(files)["license"] == "apache-2.0"
    assert f'fluxsr.load("bundled", adapter="{REPO}")' in text_of(files, "README.md")


def test_a_card_of_the_author_s_is_kept(flux: Path) -> None:
    (flux / "LICENSE.md").write_text(TEXT)
    (flux / "README.md").write_text("---\ntags: [mine]\n---\n# My words\n")
    files = contents(flux, REPO)
    card = ModelCard(text_of(files, "README.md"))
    assert card.text.strip() == "# My words" and card.data.tags == ["mine"] and card.data.license == "other"
    (flux / "README.md").write_text("---\nlicense: mit\n---\n# My words\n")
    assert "says license: mit, but a model made from FLUX.1-dev needs license: other" in refusal(ModelError, flux, REPO)
    (flux / "README.md").write_text("---\nlicense: [\n---\n")
    assert "cannot be read as a model card" in refusal(ModelError, flux, REPO)
    (flux / "README.md").write_text("")  # what `fluxsr push --dry-run > README.md` sees of itself
    assert "# my-adapter" in text_of(contents(flux, REPO), "README.md")


def test_no_pickle_is_passed_on(make_adapter: Callable[..., Path], prompt: Any, offline: None) -> None:
    folder = make_adapter(base="owner/base", licences=MIT)
    (folder / FILE).unlink()
    torch.save(prompt.prompt_embeds, folder / "t5_embedding.pth")
    torch.save(prompt.pooled_prompt_embeds, folder / "clip_embedding.pth")
    content = contents(folder, REPO)[FILE]
    assert isinstance(content, bytes) and torch.equal(load(content)["prompt_embeds"], prompt.prompt_embeds)


def test_a_folder_that_peft_saved_and_one_without_weights(
    make_adapter: Callable[..., Path], tmp_path: Path, fake_hub: Any
) -> None:
    fake_hub.repositories["owner/base"] = {"README.md": b"---\nlicense: cc-by-4.0\n---\n"}
    folder = make_adapter(base="owner/base")
    (folder / WEIGHTS_FILE).rename(folder / PEFT_FILES[0])
    (folder / PEFT_FILES[1]).write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    (folder / "optimizer.pt").touch()
    files = contents(folder, REPO)
    assert set(files) == {"README.md", "NOTICE", CONFIG_FILE, FILE, *PEFT_FILES}
    assert head_of(files)["license"] == "cc-by-4.0", "the base's card is read if nothing is recorded"
    assert "owner/base, under: cc-by-4.0" in text_of(files, "NOTICE")
    (folder / PEFT_FILES[0]).unlink()
    assert "neither transformer/config.json nor a LoRA" in refusal(ModelError, folder, REPO)
    assert f"no {CONFIG_FILE} in" in refusal(ModelError, tmp_path / "none", REPO)


def test_a_whole_model_of_flux_dev_s_sizes(model_folder: Path, tmp_path: Path, offline: None) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    path = folder / "transformer" / "config.json"
    sizes = {"num_layers": 19, "num_single_layers": 38, "num_attention_heads": 24, "attention_head_dim": 128}
    path.write_text(json.dumps(json.loads(path.read_text()) | sizes | {"guidance_embeds": True}))
    assert "must include its licence" in refusal(ModelError, folder, REPO)
    (folder / "LICENSE.md").write_text(TEXT)
    files = contents(folder, REPO, CardOverrides(base_model=FLUX))
    head = head_of(files)
    assert (head["base_model"], head["base_model_relation"]) == (FLUX, "finetune") and head["license"] == "other"
    assert f'fluxsr.load("{REPO}")' in text_of(files, "README.md") and "NOTICE" in files
