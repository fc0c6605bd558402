"""Files of a Hub repository made from a model's or adapter's folder: weights, card, notice and licence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from safetensors.torch import save

from fluxsr.backbones.adapter import CONFIG_FILE, AdapterConfig, load_config
from fluxsr.backbones.licence import (
    NOTHING_GRANTED,
    NOTICE_FILE,
    Licence,
    flux_dev,
    has_flux_dev_sizes,
    licence_of,
    notice_text,
    stated,
)
from fluxsr.backbones.lora import lora_file, read_lora
from fluxsr.backbones.parts import parameter_count, part_config, skeleton
from fluxsr.backbones.places import BUNDLED, COMPONENT_FILE, COMPONENT_FOLDER, ENCODER_FILE, PEFT_FILES, is_hub_id
from fluxsr.backbones.prompts import FILE, FixedPrompt, load_prompt
from fluxsr.errors import InputError, ModelError, is_untranslatable
from fluxsr.hub.card import Subject, card
from fluxsr.names import raw

FLUX_DEV = "black-forest-labs/FLUX.1-dev"
FLUX_DEV_PROMPT = (4096, 768)  # widths of T5's states and CLIP's pooled state


@dataclass(frozen=True)
class CardOverrides:
    """Information from the author that the folder does not contain."""

    base_model: str = ""  # Hub id of the base, or "bundled"; replaces the config's
    license: str = ""  # the Hub's identifier, such as apache-2.0, if no other licence binds the model
    license_file: str | Path | None = None  # FLUX.1-dev's text is read from the folder or from the base's repository
    recipe: str | Path | None = None  # YAML of the training recipe, printed in the card
    results: str | Path | None = None  # Markdown of measured results, printed in the card


def contents(
    folder: str | Path, repo_id: str, overrides: CardOverrides | None = None, token: str | bool | None = None
) -> dict[str, Path | bytes]:
    """Return all files of a repository by their paths in it, for an adapter or a model in diffusers layout.

    Nothing is written or uploaded. The token is used to download the base's licence.

    Raises:
        InputError: a file of ``overrides`` cannot be read, or its licence contradicts the base's.
        ModelError: the folder is incomplete, the base of an adapter is unknown, or FLUX.1-dev's licence text is
            missing.
    """
    folder, overrides = Path(folder), overrides or CardOverrides()
    config, prompt = load_config(folder), load_prompt(folder)
    config.prompt = config.prompt or prompt.text
    whole = (folder / "transformer" / "config.json").is_file()
    base = _base(folder, config, overrides.base_model, whole)
    terms = _terms(folder, config, prompt, base, whole)
    if overrides.license and terms:
        raise InputError(
            f"{folder} is made from {terms[0].model} and so under {terms[0].name}; leave out the licence of your own"
        )
    texts = _licence_texts(folder, base, terms, overrides, token)
    notice = _notice(folder, terms)
    weights, facts = _model(folder) if whole else _lora(folder)
    subject = Subject(
        repo_id,
        base,
        ("quantized" if facts["quantized by"] else "finetune") if whole else "adapter",
        config,
        facts,
        terms,
        overrides.license,
        [*texts, *([NOTICE_FILE] if notice else [])],
        _read(overrides.recipe),
        _read(overrides.results),
    )
    files: dict[str, Path | bytes] = {"README.md": card(subject, folder / "README.md").encode(), **texts}
    if notice:
        files[NOTICE_FILE] = raw(notice)
    if (folder / FILE).is_file():
        files[FILE] = folder / FILE
    elif COMPONENT_FILE not in weights:  # embeddings from pickle files are saved as safetensors
        tensors = {"prompt_embeds": prompt.prompt_embeds, "pooled_prompt_embeds": prompt.pooled_prompt_embeds}
        files[FILE] = save(tensors)
    if (folder / CONFIG_FILE).is_file():
        files[CONFIG_FILE] = folder / CONFIG_FILE
    return files | weights


def _base(folder: Path, config: AdapterConfig, base_model: str, whole: bool) -> str:
    """Return the Hub id of the base, or "bundled"; empty for a whole model whose base is not on the Hub."""
    base = base_model or config.base
    if base == BUNDLED or is_hub_id(base):
        return base
    if base_model or not whole:
        what = f"'{base_model}'" if base_model else f"its {CONFIG_FILE} calls the base '{config.base}', which"
        raise ModelError(f"{folder}: {what} is no Hub id; give the base's (--base-model owner/name)")
    return ""


def _terms(folder: Path, config: AdapterConfig, prompt: FixedPrompt, base: str, whole: bool) -> list[Licence]:
    """Return the recorded licences, and FLUX.1-dev's if sizes or names reveal it; without any, the base's."""
    terms = stated(*config.licences)
    if ungranted := [entry for entry in terms if entry.name == NOTHING_GRANTED]:
        raise ModelError(
            f"{folder} holds weights of {ungranted[0].model}, whose authors state no licence; only they may share them"
        )
    if any(entry.is_flux_dev for entry in terms):
        return terms
    widths = (prompt.prompt_embeds.shape[-1], prompt.pooled_prompt_embeds.shape[-1])
    shape = config.guidance is not None and widths == FLUX_DEV_PROMPT
    if whole:
        shape = has_flux_dev_sizes(part_config(str(folder), "transformer"))
    if shape or "flux.1-dev" in base.lower():
        return [flux_dev(base or FLUX_DEV), *terms]
    return terms or (stated(licence_of(base, {})) if base else [])


def _licence_texts(
    folder: Path, base: str, terms: Sequence[Licence], overrides: CardOverrides, token: str | bool | None
) -> dict[str, Path]:
    """Return licence files by name, with FLUX.1-dev's text first. That text is found or downloaded, never generated."""
    found = {path.name: path for path in sorted(folder.glob("LICENSE*"))}
    if overrides.license_file:
        path = Path(overrides.license_file)
        _read(path)
        found["LICENSE.md" if path.suffix == ".md" else "LICENSE"] = path
    if not any(entry.is_flux_dev for entry in terms):
        return found
    ours = {name: path for name, path in found.items() if _is_flux_text(path)}
    if not ours and (fetched := _fetched(base or FLUX_DEV, token)):
        ours = {"LICENSE.md": fetched}
    if not ours:
        raise ModelError(
            f"{folder} is made from FLUX.1-dev and must include its licence, but no text of it was found: give "
            f"LICENSE.md of https://huggingface.co/{FLUX_DEV} as --license-file (license_file=), or copy it into the "
            "folder"
        )
    return {**ours, **{name: path for name, path in found.items() if name not in ours}}


def _fetched(base: str, token: str | bool | None) -> Path | None:
    """Download the licence from the base's repository; None if that fails for any reason."""
    try:
        path = Path(hf_hub_download(base, "LICENSE.md", token=token))
    except Exception as error:  # offline, gated or missing; the caller's message says what to do
        if is_untranslatable(error):
            raise
        return None
    return path if _is_flux_text(path) else None


def _is_flux_text(path: Path) -> bool:
    words = path.read_text(encoding="utf-8", errors="replace").lower()
    return "flux" in words and "non-commercial" in words


def _notice(folder: Path, terms: Sequence[Licence]) -> str:
    """Return the folder's own notice, followed by ours if the former does not cover all licences."""
    path, ours = folder / NOTICE_FILE, notice_text(terms)
    theirs = path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else ""
    complete = "modified" in theirs and all((entry.attribution or entry.name) in theirs for entry in terms)
    return theirs if complete or not ours else "\n".join(filter(None, (theirs, ours)))


def _lora(folder: Path) -> tuple[dict[str, Path | bytes], dict[str, Any]]:
    """Return an adapter's files, and facts about its weights for the card."""
    path = lora_file(folder)
    if path is None:
        raise ModelError(f"{folder} has neither transformer/config.json nor a LoRA; give a model's or adapter's folder")
    matrices = {key: value for key, value in read_lora(path)[0].items() if ".lora_" in key}
    down = [value for key, value in matrices.items() if ".lora_A" in key]
    if not down:
        raise ModelError(f"adapter {path} holds no LoRA weights for the transformer")
    ranks = sorted({len(value) for value in down})
    count, dtype = sum(value.numel() for value in matrices.values()), str(down[0].dtype).removeprefix("torch.")
    facts = {
        "rank": " to ".join(str(rank) for rank in dict.fromkeys((ranks[0], ranks[-1]))),
        "adapted layers": len(down),
        "weights": f"{count:,} in {dtype}",
    }
    names = [name for name in (path.name, PEFT_FILES[1], ENCODER_FILE) if (folder / name).is_file()]
    return {name: folder / name for name in names}, facts


def _model(folder: Path) -> tuple[dict[str, Path | bytes], dict[str, Any]]:
    """Return a whole model's files, and facts about its weights for the card."""
    paths = [path for part in ("transformer", "vae", COMPONENT_FOLDER) for path in sorted((folder / part).glob("*"))]
    paths = [path for path in paths if path.suffix in (".json", ".safetensors")]
    extra = [folder / "model_index.json", lora_file(folder), folder / PEFT_FILES[1], folder / ENCODER_FILE]
    paths += [path for path in extra if path and path.is_file()]
    source = part_config(str(folder), "transformer")
    facts = {
        "transformer": f"{source['_class_name']}, {parameter_count(skeleton(source)):,} parameters",
        "quantized by": (source.get("quantization_config") or {}).get("quant_method"),
    }
    return {path.relative_to(folder).as_posix(): path for path in paths}, facts


def _read(path: str | Path | None) -> str:
    try:
        return Path(path).read_text(encoding="utf-8") if path else ""
    except (OSError, ValueError) as error:  # ValueError: not UTF-8
        raise InputError(f"{path} cannot be read: {error}") from error
