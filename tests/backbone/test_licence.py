"""A model's licence is found, and goes where its adapters go."""

from __future__ import annotations

from pathlib import Path

from fluxsr.backbone.licence import Licence, licence_of, write_notice

# black-forest-labs/FLUX.1-dev, transformer/config.json
FLUX_DEV = {
    "attention_head_dim": 128, "guidance_embeds": True, "in_channels": 64, "joint_attention_dim": 4096,
    "num_attention_heads": 24, "num_layers": 19, "num_single_layers": 38, "pooled_projection_dim": 768,
}  # fmt: skip


def test_flux_dev_is_known_by_its_sizes_wherever_it_lies(tmp_path: Path) -> None:
    found = licence_of(tmp_path, FLUX_DEV)
    assert found.name == "FLUX.1 [dev] Non-Commercial License" and "Non-commercial" in found.terms
    assert found.attribution.startswith("The FLUX.1 [dev] Model is licensed by Black Forest Labs")
    assert licence_of("x/schnell", FLUX_DEV | {"guidance_embeds": False}).name == ""
    assert licence_of("x/small", FLUX_DEV | {"num_layers": 1}).name == ""


def test_given_terms_win_and_cards_are_read(tmp_path: Path) -> None:
    assert licence_of(tmp_path, FLUX_DEV, "by contract").name == "by contract"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- a\n---\n# model\n", encoding="utf-8")
    assert licence_of(tmp_path, {}).name == "apache-2.0"
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n", encoding="utf-8")
    assert licence_of(tmp_path, {}).name == ""


def test_the_bundled_models_own() -> None:
    assert licence_of("bundled", {}).name == "apache-2.0"


def test_notice_names_every_source_once(tmp_path: Path) -> None:
    flux = licence_of("dev", FLUX_DEV)
    write_notice(tmp_path, flux, flux.as_dict(), Licence("other", "MIT"), None)
    notice = (tmp_path / "NOTICE").read_text(encoding="utf-8")
    assert notice.count("dev, under: FLUX.1 [dev] Non-Commercial License") == 1 and "other, under: MIT" in notice
    assert "modified" in notice and "IN NO EVENT SHALL BLACK FOREST LABS" in notice and flux.url in notice


def test_no_notice_where_nothing_is_stated(tmp_path: Path) -> None:
    write_notice(tmp_path, Licence("own"), None)
    assert list(tmp_path.iterdir()) == []
