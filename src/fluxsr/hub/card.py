"""Model card of an adapter or a model on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.backbones.licence import Licence, slug
from fluxsr.errors import ModelError, first_line, is_untranslatable
from fluxsr.version import __version__

FLUX_DEV_SLUG = "flux-1-dev-non-commercial-license"  # as in FLUX.1-dev's own card
TEMPLATE = Path(__file__).with_name("card.md")


@dataclass(frozen=True)
class Subject:
    """The adapter or model that a card describes."""

    repo_id: str
    base: str  # Hub id, or "bundled"; empty for a model without a base
    relation: str  # to the base: "adapter", "finetune" or "quantized"
    config: AdapterConfig
    facts: dict[str, Any]  # rows of the table, in addition to those from the config
    licences: Sequence[Licence]  # of everything it was made from
    own: str = ""  # the Hub's identifier of its own licence, if no other licence binds it
    texts: Sequence[str] = ()  # names of the licence files
    recipe: str = ""  # YAML of the training recipe
    results: str = ""  # Markdown of measured results


def licence_fields(licences: Collection[Licence], own: str, texts: Sequence[str]) -> dict[str, str]:
    """Return ``license``, ``license_name`` and ``license_link`` of a card; an empty dict if no licence is known."""
    names = {entry.name: entry for entry in licences}
    if any(entry.is_flux_dev for entry in licences):  # it binds everything made from FLUX.1-dev
        return {"license": "other", "license_name": FLUX_DEV_SLUG, "license_link": texts[0]}
    if len(names) > 1:
        return {"license": "other", "license_name": "see-notice", "license_link": "NOTICE"}
    if not names:
        return {"license": own} if own else {}
    (only,) = names.values()
    if not only.url and slug(only.name) == only.name:  # an identifier of the Hub's, such as apache-2.0
        return {"license": only.name}
    return {"license": "other", "license_name": slug(only.name), "license_link": only.url or "NOTICE"}


def metadata(subject: Subject) -> dict[str, Any]:
    """Return the card's YAML metadata."""
    on_the_hub = subject.base and subject.base != "bundled"
    adapter = subject.relation == "adapter"
    return {
        "pipeline_tag": "image-to-image",
        # With "diffusers" the Hub would show a snippet that loads no fixed prompt and takes many steps.
        "library_name": "fluxsr",
        **licence_fields(subject.licences, subject.own, subject.texts),
        **({"base_model": subject.base, "base_model_relation": subject.relation} if on_the_hub else {}),
        "tags": ["fluxsr", "super-resolution", "one-step", "flow-matching", *(["lora"] if adapter else [])],
    }


def card(subject: Subject, theirs: Path | None = None) -> str:
    """Return the complete card. The text of ``theirs``, the author's README.md, is kept and its metadata completed.

    Raises:
        ModelError: the README.md cannot be read, or states another licence for something made from FLUX.1-dev.
    """
    head = metadata(subject)
    if theirs is not None and theirs.is_file() and theirs.stat().st_size:
        written = _read(theirs)
        found = written.data.to_dict()
        is_flux = any(entry.is_flux_dev for entry in subject.licences)
        bound = {key: head[key] for key in ("license", "license_name")} if is_flux else {}
        if other := [f"{key}: {found[key]}" for key in bound if found.get(key, bound[key]) != bound[key]]:
            wanted = ", ".join(f"{key}: {value}" for key, value in bound.items())
            raise ModelError(f"{theirs} says {', '.join(other)}, but a model made from FLUX.1-dev needs {wanted}")
        return f"---\n{ModelCardData(**(head | found)).to_yaml()}\n---\n{written.text}"
    adapter = subject.relation == "adapter"
    values = {
        **vars(subject),
        "title": subject.repo_id.rsplit("/", 1)[-1],
        "version": __version__,
        "model": subject.base if adapter else subject.repo_id,
        "adapter": subject.repo_id if adapter else "",
        "facts": _facts(subject),
        "texts": ", ".join(f"[{name}]({name})" for name in subject.texts),
    }
    return str(ModelCard.from_template(ModelCardData(**head), template_path=str(TEMPLATE), **values))


def _read(path: Path) -> ModelCard:
    try:
        return ModelCard(path.read_text(encoding="utf-8"))
    except Exception as error:  # from yaml, huggingface_hub or the decoder
        if is_untranslatable(error):
            raise
        raise ModelError(f"{path} cannot be read as a model card: {first_line(error)}") from error


def _facts(subject: Subject) -> dict[str, Any]:
    """Return the rows of the card's table that have a value."""
    config = subject.config
    rows = {
        "base": subject.base or config.base,
        "T_L, where the LR latent enters": f"{config.t_l:g}",
        "guidance": config.guidance,
        "strength of the step": f"{config.strength:g}",
        "trained at": f"x{config.scale}",
        "largest tile": f"{config.tile_size} px",
        "prompt": config.prompt.replace("|", "\\|").replace("\n", " ") or "its text was not recorded",
        "alpha": f"{config.alpha:g}" if config.alpha else None,
    }
    return {name: value for name, value in (rows | subject.facts).items() if value not in (None, "")}
