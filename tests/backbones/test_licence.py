"""A model's licence is found, and goes where its adapters go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from fluxsr.backbones import licence
from fluxsr.backbones.licence import NOTICE_FILE, Licence, licence_of, pass_on, write_notice

# black-forest-labs/FLUX.1-dev, transformer/config.json
FLUX_DEV = {
    "attention_head_dim": 128, "guidance_embeds": True, "in_channels": 64, "joint_attention_dim": 4096,
    "num_attention_heads": 24, "num_layers": 19, "num_single_layers": 38, "pooled_projection_dim": 768,
}  # fmt: skip


def test_flux_dev_is_known_by_its_sizes_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licence, "hf_hub_download", lambda *_request: tmp_path / "no card")
    found = licence_of(tmp_path, FLUX_DEV)
    assert found.name == "FLUX.1 [dev] Non-Commercial License" and "Non-commercial" in found.terms
    assert found.attribution.startswith("The FLUX.1 [dev] Model is licensed by Black Forest Labs")
    assert licence_of("x/schnell", FLUX_DEV | {"guidance_embeds": False}).name == ""
    assert licence_of("x/small", FLUX_DEV | {"num_layers": 1}).name == ""


def test_klein_s_licence_depends_on_its_size(tmp_path: Path) -> None:
    small = {"_class_name": "Flux2Transformer2DModel", "num_layers": 5, "num_single_layers": 20}
    found = licence_of(tmp_path, small | {"num_attention_heads": 24})
    assert found.name == "apache-2.0" and not found.is_flux_dev and not found.attribution
    large = small | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32}
    assert licence_of(tmp_path, large).name == "FLUX Non-Commercial License"
    assert licence_of(tmp_path, small | {"num_attention_heads": 3}).name == ""
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    assert licence_of(tmp_path, large).name == "mit"


def test_given_terms_win_and_cards_are_read(tmp_path: Path) -> None:
    assert licence_of(tmp_path, FLUX_DEV, "by contract").name == "by contract"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- a\n---\n# model\n", encoding="utf-8")
    assert licence_of(tmp_path, {}).name == "apache-2.0"
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n", encoding="utf-8")
    assert licence_of(tmp_path, {}).name == ""


def test_a_hub_models_card_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: other\nlicense_name: house-terms\nlicense_link: LICENSE\n---\n", encoding="utf-8")
    monkeypatch.setattr(licence, "hf_hub_download", lambda *request: asked.append(request) or str(card))
    assert licence_of("owner/model", {}) == Licence("owner/model", "house-terms", "LICENSE")
    assert licence_of("owner/model", FLUX_DEV).name.startswith("FLUX.1 [dev]")
    assert licence_of("owner/model", {}, "by contract").name == "by contract"
    assert asked == [("owner/model", "README.md")]  # only where nothing else says it


def test_offline_is_one_warning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def offline(*_request: str) -> str:
        raise LocalEntryNotFoundError("no network\nand more of it")

    monkeypatch.setattr(licence, "hf_hub_download", offline)
    assert licence_of("owner/model", {}) == Licence("owner/model")
    expected = "warning: licence of owner/model not found, its card cannot be read: no network\n"
    assert capsys.readouterr().err == expected


def test_the_bundled_models_own() -> None:
    assert licence_of("bundled", {}).name == "apache-2.0"


def test_notice_names_every_source_once(tmp_path: Path) -> None:
    flux = licence_of("dev", FLUX_DEV)
    write_notice(tmp_path, flux, flux.as_dict(), Licence("other", "MIT"), None)
    notice = (tmp_path / "NOTICE").read_text(encoding="utf-8")
    assert notice.count("dev, under: FLUX.1 [dev] Non-Commercial License") == 1 and "other, under: MIT" in notice
    assert "modified" in notice and "IN NO EVENT SHALL BLACK FOREST LABS" in notice and flux.url in notice


def test_owners_under_one_licence_are_all_named(tmp_path: Path) -> None:
    write_notice(tmp_path, Licence("a/base", "MIT"), Licence("b/teacher", "MIT"), {"model": "a/base", "name": "MIT"})
    notice = (tmp_path / "NOTICE").read_text(encoding="utf-8")
    assert notice.count("a/base, under: MIT") == notice.count("b/teacher, under: MIT") == 1


def test_no_notice_where_nothing_is_stated(tmp_path: Path) -> None:
    write_notice(tmp_path, Licence("own"), None)
    assert list(tmp_path.iterdir()) == []


def test_a_notice_in_another_encoding_is_passed_on_byte_for_byte(tmp_path: Path) -> None:
    for name, text in (("a", "(c) José".encode("latin-1")), ("b", "(c) Jörg".encode("latin-1"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / NOTICE_FILE).write_bytes(text)
    pass_on(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / NOTICE_FILE).read_bytes() == "(c) José\n(c) Jörg".encode("latin-1")
