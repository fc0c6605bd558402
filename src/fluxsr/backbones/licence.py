"""Find the licence of a model, and write the notice for models that are made from it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download

from fluxsr.backbones.places import folder_of, public_name
from fluxsr.errors import first_line, is_untranslatable
from fluxsr.names import raw

NOTICE_FILE = "NOTICE"
NOTHING_GRANTED = "no licence stated"  # so that nobody but its authors may pass it on


@dataclass(frozen=True)
class Licence:
    """Licence of a model.

    Attributes:
        model: name of the model.
        name: name of the licence, or "" if the model states none.
        url: address of the licence's text.
        terms: summary of the terms in one line.
        attribution: line that the licence requires in a notice.
    """

    model: str
    name: str = ""
    url: str = ""
    terms: str = ""
    attribution: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    @property
    def is_flux_dev(self) -> bool:
        """Whether this is the FLUX.1 [dev] Non-Commercial License, in any spelling."""
        words = slug(self.name).replace(".", "-")
        return "flux" in words and "dev" in words and "non-commercial" in words


# Configuration of FLUX.1-dev's transformer. A model with these values is treated as a derivative of FLUX.1-dev.
_FLUX_DEV = {
    "num_layers": 19,
    "num_single_layers": 38,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "guidance_embeds": True,
}


# Licences of FLUX.2 by (double blocks, single blocks, heads). The last entry is [dev].
_FLUX_2 = ("Flux2Transformer2DModel", "FoldedFlux2Transformer2DModel")
_FLUX_2_LICENCES = {
    (5, 20, 24): ("apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", ""),
    (8, 24, 32): ("FLUX Non-Commercial License", "", "Non-commercial use only. Pass on a copy of the licence."),
    (8, 48, 48): ("FLUX Non-Commercial License", "", "Non-commercial use only. Pass on a copy of the licence."),
}


def has_flux_dev_sizes(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration has the sizes of FLUX.1-dev's transformer, folded or not."""
    return all(config.get(key) == value for key, value in _FLUX_DEV.items())


def licence_of(model: str | Path, config: Mapping[str, Any], override: str = "") -> Licence:
    """Return the licence of a model.

    Args:
        model: folder, Hub id or "bundled", whose model card may state ``license``.
        config: configuration of its transformer. The sizes identify FLUX.1-dev, and FLUX.2 if no card states a licence.
        override: name of a licence that the user states, which takes precedence.
    """
    name = public_name(model)
    if override:
        return Licence(name, override)
    if has_flux_dev_sizes(config):
        return flux_dev(name)
    path = _readme(model)
    card = _card(path) if path else {}
    if licence := str(card.get("license_name") or card.get("license") or ""):
        return Licence(name, licence, str(card.get("license_link") or ""))
    sizes: Any = tuple(config.get(key) for key in ("num_layers", "num_single_layers", "num_attention_heads"))
    if config.get("_class_name") in _FLUX_2 and sizes in _FLUX_2_LICENCES:
        return Licence(name, *_FLUX_2_LICENCES[sizes])
    return Licence(name)


def slug(name: str) -> str:
    """Return a licence's name as the Hub spells it: lower case, with digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def flux_dev(model: str) -> Licence:
    """Return the licence of FLUX.1-dev with the attribution that it requires, but without the full text."""
    return Licence(
        model,
        "FLUX.1 [dev] Non-Commercial License",
        "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
        "Non-commercial use only. Pass on a copy of the licence and this notice. Outputs must not be used to train "
        "a model that competes with FLUX.1 [dev].",
        "The FLUX.1 [dev] Model is licensed by Black Forest Labs. Inc. under the FLUX.1 [dev] Non-Commercial "
        "License. Copyright Black Forest Labs. Inc. IN NO EVENT SHALL BLACK FOREST LABS, INC. BE LIABLE FOR ANY "
        "CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT "
        "OF OR IN CONNECTION WITH USE OF THIS MODEL.",
    )


def stated(*licences: Licence | Mapping[str, str] | None) -> list[Licence]:
    """Return the licences that have a name, without duplicates."""
    found = [entry if isinstance(entry, Licence) else Licence(**entry) for entry in licences if entry]
    return list({(entry.model, entry.name): entry for entry in found if entry.name}.values())


def write_notice(folder: str | Path, *licences: Licence | Mapping[str, str] | None) -> None:
    """Write ``NOTICE`` into a model folder if any of the licences has a name."""
    if text := notice_text(stated(*licences)):
        Path(folder, NOTICE_FILE).write_text(text, encoding="utf-8")


def notice_text(licences: Sequence[Licence]) -> str:
    """Return the text of ``NOTICE``, which lists the source models and their terms. Return "" without licences."""
    if not licences:
        return ""
    parts = ["The weights in this folder were made with fluxsr. They are a modified work, made from:"]
    for entry in licences:
        lines = [f"{entry.model}, under: {entry.name}", entry.url, entry.terms, entry.attribution]
        parts.append("\n".join(line for line in lines if line))
    parts.append("Whoever passes these weights on passes these terms on with them.")
    return "\n\n".join(parts) + "\n"


def pass_on(folder: str | Path, *sources: str | Path) -> None:
    """Copy the licence texts of source folders into a model folder, and append their notices to its own.

    Call ``write_notice`` first. Sources that are Hub ids are ignored, because ``licence_of`` links to their texts.
    """
    notice = Path(folder, NOTICE_FILE)
    for source in filter(Path.is_dir, map(Path, sources)):
        for text in sorted(source.glob("LICENSE*")):
            copy_licence(text, Path(folder), public_name(source))
        present = _lossless_text(notice) if notice.is_file() else ""
        theirs = Path(source, NOTICE_FILE)
        if theirs.is_file() and (more := _lossless_text(theirs)) not in present:
            notice.write_bytes(raw(f"{present}\n{more}" if present else more))


def copy_licence(text: Path, folder: Path, source: str, name: str = "") -> None:
    """Copy a licence text. If the folder has another text of this name, the name of the copy names its source."""
    target = folder / (name or text.name)
    if target.is_file() and target.read_bytes() != text.read_bytes():
        target = folder / f"LICENSE-{slug(source)}{text.suffix}"
    shutil.copy(text, target)


def _lossless_text(path: Path) -> str:
    """Return the text of a file in any encoding, from which ``raw`` restores the bytes."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _readme(model: str | Path) -> Path | None:
    """Return the path of the model card, downloaded for a Hub id. Warn and return None if the download fails."""
    folder = folder_of(model)
    if isinstance(folder, Path):
        return folder / "README.md"
    try:
        return Path(hf_hub_download(folder, "README.md"))
    except Exception as error:  # the Hub client raises many types; a missing licence is only a warning
        if is_untranslatable(error):
            raise
        print(f"warning: licence of {model} not found, its card cannot be read: {first_line(error)}", file=sys.stderr)
        return None


def _card(path: Path) -> dict[str, Any]:
    """Return the YAML head of a model card, or an empty dict if there is none."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    head = text.split("---\n")[1] if text.startswith("---\n") and text.count("---\n") > 1 else ""
    try:
        card = yaml.safe_load(head)
    except yaml.YAMLError:  # an invalid head states no licence
        return {}
    return card if isinstance(card, dict) else {}
