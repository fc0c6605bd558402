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


@dataclass
class AdapterConfig:
    """Settings of an adapter (``fluxsr_config.json``) or of a saved pipeline (``model_index.json``)."""

    t_l: float = 0.25  # time at which the LR latent enters
    strength: float = 1.0  # default strength of the step
    guidance: float | None = None  # distilled guidance, for bases that embed one
    train_dtype: str = "bf16"  # number format of the training (device.DTYPES); files without it count as bf16
    scale: int = 4  # upscaling factor that it was trained for
    tile_size: int = 512  # largest tile that was tested, in output pixels
    prompt: str = ""  # text of the fixed prompt, for information only; the embeddings are in their own file
    rank: int = 0
    alpha: float = 0.0
    base: str = ""  # model that the adapter was trained on
    licences: list[dict[str, str]] = field(default_factory=list)  # of base and teacher, as licence.Licence
    source: str = ""  # published adapter that it was imported from
    format: int = 1

    @property
    def condition(self) -> tuple[float, float | None]:
        """Time and guidance after the rounding of training. Every number format must use these values.

        Training in bfloat16 rounds a guidance of 3.5 to 3.504. With 3.5 itself, FLUX.1-dev's velocity changes by 3 %.
        """
        dtype = DTYPES[self.train_dtype]
        return on_grid(self.t_l, dtype), None if self.guidance is None else on_grid(self.guidance, dtype)

    @property
    def registered(self) -> dict[str, Any]:
        """Keyword arguments for ``FluxSRPipeline``. The text of the prompt is in its own component."""
        values = {name: value for name, value in asdict(self).items() if name not in ("prompt", "format")}
        # "origin" is a mapping because diffusers treats every list in model_index.json as a component
        return {"origin": {name: values.pop(name) for name in ORIGIN}, **values}

    @classmethod
    def of(cls, registered: Mapping[str, Any], prompt: str) -> AdapterConfig:
        """Return an `AdapterConfig` from the registered settings of a pipeline and the text of its prompt."""
        known = {entry.name for entry in fields(cls)} - {"prompt", "format", *ORIGIN}
        own = {name: registered[name] for name in known if name in registered}
        return cls(**own, **(registered["origin"] or {}), prompt=prompt)

    def save(self, folder: str | Path) -> None:
        """Write ``fluxsr_config.json`` into a folder."""
        Path(folder, CONFIG_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def has_config(folder: Path) -> bool:
    """Return whether a folder holds an adapter or a saved pipeline."""
    index = folder / INDEX_FILE
    return (folder / CONFIG_FILE).is_file() or (index.is_file() and '"t_l"' in index.read_text(encoding="utf-8"))


def load_config(folder: str | Path) -> AdapterConfig:
    """Read the settings of an adapter, or of a saved pipeline if the folder has no adapter.

    Raises:
        ModelError: the file is missing or unreadable, a key is unknown, or a setting is out of range.
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
            raise ModelError(f"{path} has unknown keys {', '.join(unknown)}; known keys are {', '.join(sorted(known))}")
        config = AdapterConfig.of(values, "") if index else AdapterConfig(**values)
        for entry in config.licences:
            Licence(**entry)  # raises a TypeError for an unknown key
        if fault := invalid_setting(config) or unknown_dtype(config.train_dtype):
            raise ModelError(f"{path} says {fault}")
    except FileNotFoundError:
        raise ModelError(
            f"no {CONFIG_FILE} in {folder}; give a FluxSR adapter folder or write one (docs/inference.md)"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return config


def invalid_setting(settings: Any) -> str:
    """Return a description of the first setting that is out of range, or "" if all are valid.

    Args:
        settings: an `AdapterConfig`, or a training recipe with the same settings.
    """
    if not 0 < settings.t_l < 1:
        return f"t_l = {settings.t_l}; it must lie between 0 and 1"
    for name in ("strength", "guidance"):
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
    return ""


def unknown_dtype(name: Any) -> str:
    """Return a description of the error if a name is not in ``DTYPES``, and "" otherwise."""
    return "" if name in DTYPES else f"train_dtype = {name!r}; it must be one of {', '.join(DTYPES)}"
