"""The licence of a model, and the notice that travels with whatever is made from it."""

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

from fluxsr.backbones.places import first_line, folder_of, is_hub_id
from fluxsr.errors import is_untranslatable
from fluxsr.names import raw

NOTICE_FILE = "NOTICE"
NOTHING_GRANTED = "no licence stated"  # so that nobody but its authors may pass it on


@dataclass(frozen=True)
class Licence:
    """Terms of a model.

    Attributes:
        model: whose terms these are.
        name: of the licence; empty where the model states none.
        url: its text.
        terms: what matters most, in a line.
        attribution: the line that the licence wants in a notice.
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
        """The FLUX.1 [dev] Non-Commercial License, however it is spelled."""
        words = slug(self.name).replace(".", "-")
        return "flux" in words and "dev" in words and "non-commercial" in words


# The sizes of FLUX.1-dev's transformer; whatever shares them and embeds a guidance was made from its weights.
_FLUX_DEV = {
    "num_layers": 19,
    "num_single_layers": 38,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "guidance_embeds": True,
}


# FLUX.2's, whose licence depends on the size. The configuration of [dev] is the class's default.
_FLUX_2 = ("Flux2Transformer2DModel", "FoldedFlux2Transformer2DModel")
_FLUX_2_LICENCES = {
    (5, 20, 24): ("apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", ""),
    (8, 24, 32): ("FLUX Non-Commercial License", "", "Non-commercial use only. Pass on a copy of the licence."),
    (8, 48, 48): ("FLUX Non-Commercial License", "", "Non-commercial use only. Pass on a copy of the licence."),
}


def has_flux_dev_sizes(config: Mapping[str, Any]) -> bool:
    """Whether a transformer's configuration is FLUX.1-dev's, folded or not."""
    return all(config.get(key) == value for key, value in _FLUX_DEV.items())


def licence_of(model: str | Path, config: Mapping[str, Any], given: str = "") -> Licence:
    """Return the licence of a model.

    Args:
        model: folder, Hub id or "bundled"; its model card states ``license``.
        config: of its transformer, whose sizes reveal FLUX.1-dev, and FLUX.2 where no card states a licence.
        given: terms stated by the user, which come first.
    """
    name = public_name(model)
    if given:
        return Licence(name, given)
    if has_flux_dev_sizes(config):
        return flux_dev(name)
    path = _readme(model)
    card = _card(path) if path else {}
    if stated := str(card.get("license_name") or card.get("license") or ""):
        return Licence(name, stated, str(card.get("license_link") or ""))
    sizes: Any = tuple(config.get(key) for key in ("num_layers", "num_single_layers", "num_attention_heads"))
    if config.get("_class_name") in _FLUX_2 and sizes in _FLUX_2_LICENCES:
        return Licence(name, *_FLUX_2_LICENCES[sizes])
    return Licence(name)


def slug(name: str) -> str:
    """A licence's name as the Hub spells names: small letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def public_name(model: str | Path) -> str:
    """A model's name in what is passed on: a Hub id as it is, of a path its end; the rest is nobody's business."""
    return str(model) if is_hub_id(model) else Path(model).name


def flux_dev(model: str) -> Licence:
    """FLUX.1-dev's terms, with the line that its licence wants in a notice; the licence's text is not ours to write."""
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
    """Those that name their terms, each once."""
    found = [entry if isinstance(entry, Licence) else Licence(**entry) for entry in licences if entry]
    return list({(entry.model, entry.name): entry for entry in found if entry.name}.values())


def write_notice(folder: str | Path, *licences: Licence | Mapping[str, str] | None) -> None:
    """Write ``NOTICE`` beside weights, if any licence of what they were made from is stated."""
    if text := notice_text(stated(*licences)):
        Path(folder, NOTICE_FILE).write_text(text, encoding="utf-8")


def notice_text(licences: Sequence[Licence]) -> str:
    """What ``NOTICE`` says: a modified work, what of, and under which terms. Empty where none is stated."""
    if not licences:
        return ""
    parts = ["The weights in this folder were made with fluxsr. They are a modified work, made from:"]
    for entry in licences:
        lines = [f"{entry.model}, under: {entry.name}", entry.url, entry.terms, entry.attribution]
        parts.append("\n".join(line for line in lines if line))
    parts.append("Whoever passes these weights on passes these terms on with them.")
    return "\n\n".join(parts) + "\n"


def pass_on(folder: str | Path, *sources: str | Path) -> None:
    """Copy licence texts of source folders into a model's folder, and add their notices to its own.

    ``write_notice`` comes first. Sources that are Hub ids are ignored; ``licence_of`` links to their texts.
    """
    notice = Path(folder, NOTICE_FILE)
    for source in filter(Path.is_dir, map(Path, sources)):
        for text in sorted(source.glob("LICENSE*")):
            shutil.copy(text, folder)
        told = _exactly(notice) if notice.is_file() else ""
        theirs = Path(source, NOTICE_FILE)
        if theirs.is_file() and (more := _exactly(theirs)) not in told:
            notice.write_bytes(raw(f"{told}\n{more}" if told else more))


def _exactly(path: Path) -> str:
    """The text of a file whose bytes ``raw`` gives back, whatever their encoding."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _readme(model: str | Path) -> Path | None:
    """The model card's file, fetched where the model is a Hub id; None, and a line on stderr, if it cannot be had."""
    folder = folder_of(model)
    if isinstance(folder, Path):
        return folder / "README.md"
    try:
        return Path(hf_hub_download(folder, "README.md"))
    except Exception as error:  # offline, gated, no card: the hub raises many kinds, and a licence stops no work
        if is_untranslatable(error):
            raise
        print(f"warning: licence of {model} not found, its card cannot be read: {first_line(error)}", file=sys.stderr)
        return None


def _card(path: Path) -> dict[str, Any]:
    """The YAML head of a model card; empty without one."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    head = text.split("---\n")[1] if text.startswith("---\n") and text.count("---\n") > 1 else ""
    try:
        card = yaml.safe_load(head)
    except yaml.YAMLError:  # a card that is no YAML states nothing
        return {}
    return card if isinstance(card, dict) else {}
