"""The settings of an adapter and of the pipeline that it is loaded into."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fluxsr.backbones.device import DTYPES
from fluxsr.backbones.licence import Licence
from fluxsr.backbones.places import CONFIG_FILE, INDEX_FILE
from fluxsr.backbones.velocity import on_grid
from fluxsr.errors import ModelError
from fluxsr.options import MAX_STRENGTH

ORIGIN = ("base", "rank", "alpha", "licences", "source")  # where an adapter comes from; they change no pixel
PATCH_OFFSETS = (1, 2, 4)


@dataclass
class AdapterConfig:
    """Settings of an adapter (``fluxsr_config.json``) or of a saved pipeline (``model_index.json``)."""

    t_l: float = 0.25  # time at which the LR latent enters
    strength: float = 1.0  # default strength of the step
    guidance: float | None = None  # distilled guidance, for bases that embed one
    train_dtype: str = "bf16"  # number format that it was trained in (device.DTYPES); what names none is taken for bf16
    scale: int = 4  # magnification it was trained for
    tile_size: int = 512  # largest tile, in output pixels, that it is known to work on
    patch_offsets: int = 1  # 1, 2 or 4: average the velocity over offsets of the tokens (extensions/patch_offsets.py)
    lattice_reach: float = 0.0  # tokens over which the removed lattice is averaged; 0: off (extensions/postprocess.py)
    fine_strength: float = 1.0  # fraction of the finest added detail that is kept (extensions/postprocess.py)
    flat_floor: float = 0.0  # detail amplitude of the input below which added detail is attenuated; 0 is off (ditto)
    prompt: str = ""  # text of the fixed prompt, for people; the embeddings are in their own file
    rank: int = 0
    alpha: float = 0.0
    base: str = ""  # model it adapts
    licences: list[dict[str, str]] = field(default_factory=list)  # of what it was made from (licence.py's fields)
    source: str = ""  # published adapter that it was imported from
    format: int = 1

    @property
    def condition(self) -> tuple[float, float | None]:
        """Time and guidance as the transformer saw them in training; in every number format it has to see the same.

        A guidance of 3.5 was 3.504 in a training in bfloat16; 3.5 itself changes FLUX.1-dev's velocity by 3 %.
        """
        dtype = DTYPES[self.train_dtype]
        return on_grid(self.t_l, dtype), None if self.guidance is None else on_grid(self.guidance, dtype)

    @property
    def postprocess(self) -> dict[str, float]:
        """Options of ``extensions.postprocess.postprocess``."""
        return {name: getattr(self, name) for name in ("lattice_reach", "fine_strength", "flat_floor")}

    @property
    def registered(self) -> dict[str, Any]:
        """The settings as ``FluxSRPipeline`` takes and registers them; the prompt's text is in its own component."""
        values = {name: value for name, value in asdict(self).items() if name not in ("prompt", "format")}
        # a mapping: diffusers takes every list in model_index.json for a component
        return {"origin": {name: values.pop(name) for name in ORIGIN}, **values}

    @classmethod
    def of(cls, registered: Mapping[str, Any], prompt: str) -> AdapterConfig:
        """Return the settings that a pipeline has registered, and the text of its prompt."""
        known = {entry.name for entry in fields(cls)} - {"prompt", "format", *ORIGIN}
        own = {name: registered[name] for name in known if name in registered}
        return cls(**own, **(registered["origin"] or {}), prompt=prompt)

    def save(self, folder: str | Path) -> None:
        Path(folder, CONFIG_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def has_config(folder: Path) -> bool:
    """Return whether a folder holds an adapter or a saved pipeline."""
    index = folder / INDEX_FILE
    return (folder / CONFIG_FILE).is_file() or (index.is_file() and '"t_l"' in index.read_text(encoding="utf-8"))


def load_config(folder: str | Path) -> AdapterConfig:
    """Read the settings of an adapter, or of a saved pipeline that no adapter has joined.

    Raises:
        ModelError: missing or unreadable file, unknown keys, or settings that cannot be.
    """
    path = Path(folder, CONFIG_FILE)
    index = not path.is_file() and Path(folder, INDEX_FILE).is_file()
    try:
        values = json.loads((path.with_name(INDEX_FILE) if index else path).read_text(encoding="utf-8"))
        if index and "t_l" not in values:
            raise FileNotFoundError
        known = {entry.name for entry in fields(AdapterConfig)}
        unknown = sorted(set(values) - known)
        if unknown and not index:
            raise ModelError(f"{path} has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        config = AdapterConfig.of(values, "") if index else AdapterConfig(**values)
        for entry in config.licences:
            Licence(**entry)  # a TypeError names a key that there is not
        if fault := unfit(config) or unknown_dtype(config.train_dtype):
            raise ModelError(f"{path} says {fault}")
    except FileNotFoundError:
        raise ModelError(
            f"no {CONFIG_FILE} in {folder}; give a FluxSR adapter folder or write one (docs/inference.md)"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return config


def unfit(settings: Any) -> str:
    """What none of an adapter's settings may be; empty where all are well.

    Args:
        settings: an `AdapterConfig`, or a recipe whose settings travel into one.
    """
    if not 0 < settings.t_l < 1:
        return f"t_l = {settings.t_l}; it must lie between 0 and 1"
    for name in ("strength", "guidance", "lattice_reach", "fine_strength", "flat_floor"):
        value = getattr(settings, name)
        if name == "guidance" and value is None:
            continue
        if not isinstance(value, (int, float)):
            return f"{name} = {value!r}; it must be a number"
        if not (math.isfinite(value) and value >= 0):
            return f"{name} = {value!r}; it must be 0 or more"
    if settings.strength > MAX_STRENGTH:
        return f"strength = {settings.strength!r}; it must be {MAX_STRENGTH:g} or less"
    if not isinstance(settings.tile_size, int) or settings.tile_size < 1:
        return f"tile_size = {settings.tile_size!r}; it must be a whole number of pixels"
    if settings.patch_offsets not in PATCH_OFFSETS:
        return f"patch_offsets = {settings.patch_offsets!r}; it must be one of {', '.join(map(str, PATCH_OFFSETS))}"
    return ""


def unknown_dtype(name: Any) -> str:
    """The fault of an adapter's ``train_dtype``; empty where there is none."""
    return "" if name in DTYPES else f"train_dtype = {name!r}; it must be one of {', '.join(DTYPES)}"
