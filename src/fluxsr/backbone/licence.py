"""The licence of a model, and the notice that travels with whatever is made from it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download

from fluxsr.backbone.places import folder_of

NOTICE_FILE = "NOTICE"


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


# The sizes of FLUX.1-dev's transformer; whatever shares them and embeds a guidance was made from its weights.
_FLUX_DEV = {
    "num_layers": 19,
    "num_single_layers": 38,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "guidance_embeds": True,
}


def licence_of(model: str | Path, config: Mapping[str, Any], given: str = "") -> Licence:
    """The licence of a model.

    Args:
        model: folder, Hub id or "bundled"; its model card (README.md) is asked for ``license``.
        config: of its transformer. FLUX.1-dev is known by its sizes, wherever it lies and whatever it is called.
        given: stated by the user, such as terms agreed with the owner; wins over what is found.
    """
    name = str(model)
    if given:
        return Licence(name, given)
    if all(config.get(key) == value for key, value in _FLUX_DEV.items()):
        return Licence(
            name,
            "FLUX.1 [dev] Non-Commercial License",
            "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
            "Non-commercial use only. Pass on a copy of the licence and this notice. Outputs must not be used to train "
            "a model that competes with FLUX.1 [dev].",
            "The FLUX.1 [dev] Model is licensed by Black Forest Labs. Inc. under the FLUX.1 [dev] Non-Commercial "
            "License. Copyright Black Forest Labs. Inc. IN NO EVENT SHALL BLACK FOREST LABS, INC. BE LIABLE FOR ANY "
            "CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT "
            "OF OR IN CONNECTION WITH USE OF THIS MODEL.",
        )
    path = _readme(model)
    card = _card(path) if path else {}
    return Licence(
        name, str(card.get("license_name") or card.get("license") or ""), str(card.get("license_link") or "")
    )


def write_notice(folder: str | Path, *licences: Licence | Mapping[str, str] | None) -> None:
    """Write ``NOTICE`` beside weights: what they were made from, under which terms. Nothing where none is stated.

    Args:
        folder: of the adapter or model.
        licences: of its base and of the teacher of its pairs (a manifest's ``licence``); repetitions are dropped.
    """
    found = [entry if isinstance(entry, Licence) else Licence(**entry) for entry in licences if entry]
    stated = list({(entry.model, entry.name): entry for entry in found if entry.name}.values())
    if not stated:
        return
    parts = ["The weights in this folder were made with fluxsr. They are a modified work, made from:"]
    for entry in stated:
        lines = [f"{entry.model}, under: {entry.name}", entry.url, entry.terms, entry.attribution]
        parts.append("\n".join(line for line in lines if line))
    parts.append("Whoever passes these weights on passes these terms on with them.")
    Path(folder, NOTICE_FILE).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def pass_on(folder: str | Path, *sources: str | Path) -> None:
    """Copy licence texts of what a model was made from into its folder, and add their notices to its own.

    Args:
        folder: of the model; ``write_notice`` comes first.
        sources: folders (others, such as Hub ids, are passed over; ``licence_of`` knows where their texts are).
    """
    notice = Path(folder, NOTICE_FILE)
    for source in filter(Path.is_dir, map(Path, sources)):
        for text in sorted(source.glob("LICENSE*")):
            shutil.copy(text, folder)
        told = notice.read_text(encoding="utf-8") if notice.is_file() else ""
        theirs = Path(source, NOTICE_FILE)
        if theirs.is_file() and (more := theirs.read_text(encoding="utf-8")) not in told:
            notice.write_text(f"{told}\n{more}" if told else more, encoding="utf-8")


def _readme(model: str | Path) -> Path | None:
    """The model card's file, fetched where the model is a Hub id; None, and a line on stderr, if it cannot be had."""
    folder = folder_of(model)
    if isinstance(folder, Path):
        return folder / "README.md"
    try:
        return Path(hf_hub_download(folder, "README.md"))
    except Exception as error:  # offline, gated, no card: the hub raises many kinds, and a licence stops no work
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        print(f"warning: licence of {model} not found, its card cannot be read: {reason}", file=sys.stderr)
        return None


def _card(path: Path) -> dict[str, Any]:
    """The YAML head of a model card; empty without one."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    head = text.split("---\n")[1] if text.startswith("---\n") and text.count("---\n") > 1 else ""
    try:
        card = yaml.safe_load(head)
    except yaml.YAMLError:  # a card that is no YAML states nothing
        return {}
    return card if isinstance(card, dict) else {}
