"""Identify a model by hashes of the files that its results depend on, without loading the model.

The module does not import diffusers or transformers, so a command without work ends at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from fluxsr.backbones.places import (
    AUTOENCODER,
    COMPONENT_FILE,
    CONFIG_FILE,
    ENCODER_FILE,
    INDEX_FILE,
    PEFT_FILES,
    PROMPT_FILE,
    PROMPT_PICKLES,
    WEIGHTS_FILE,
    autoencoder_folder,
    download,
    folder_of,
)

HASHED = 256 * 2**20  # largest file that is hashed completely; FLUX.1-dev's 24 GB would take most of a minute
_HEAD = 2**20  # bytes that are read of a larger file
_ADAPTER = (
    CONFIG_FILE,
    WEIGHTS_FILE,
    *PEFT_FILES,
    ENCODER_FILE,
    PROMPT_FILE,
    *PROMPT_PICKLES,
    COMPONENT_FILE,
    INDEX_FILE,
)
_PARTS = (".json", ".safetensors", ".bin")


def contents_of(
    model: str, adapter: str | None = None, config_folder: str | None = None, vae: str | None = None
) -> dict[str, str]:
    """Return a hash of every file that the results of a model depend on.

    A model on the Hub is identified by its commit. The path and the name of a local folder do not matter.

    Args:
        model, adapter, config_folder, vae: see ``fluxsr.load``.

    Raises:
        ModelError: the model, the adapter or the autoencoder does not exist.
    """
    path, found = Path(model), dict[str, str]()
    if path.is_file():
        files = {"model": path, "model/autoencoder": path.with_name(AUTOENCODER)}
        found |= {name: mark_of(file) for name, file in files.items() if file.is_file()}
        flux_dev = Path(str(resources.files("fluxsr") / "pretrained" / "flux_dev"))
        base: Path | str = folder_of(config_folder) if config_folder else flux_dev
        beside: Path | str = path.parent
    else:
        base = beside = folder_of(model)
    found |= _marks(base, "model", parts=True)
    for file in sorted(autoencoder_folder(vae).iterdir()) if vae else []:
        if file.suffix in _PARTS:
            found[f"vae/{file.name}"] = mark_of(file)
    return found | _marks(folder_of(adapter) if adapter else beside, "adapter", parts=False)


def mark_of(file: Path) -> str:
    """Return a hash of a file. A large file gets its size, its modification time and a hash of its beginning."""
    state = file.stat()
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while chunk := data.read(_HEAD):
            digest.update(chunk)
            if state.st_size > HASHED:
                return f"{state.st_size} {state.st_mtime_ns} {digest.hexdigest()}"
    return digest.hexdigest()


def _marks(folder: Path | str, role: str, parts: bool) -> dict[str, str]:
    if isinstance(folder, str):  # for a Hub id, the folder in the Hub's cache is named by the commit
        return {role: download(folder, [CONFIG_FILE, INDEX_FILE], role).name}
    files = _of_model(folder) if parts else (folder / name for name in _ADAPTER)
    return {f"{role}/{file.relative_to(folder).as_posix()}": mark_of(file) for file in files if file.is_file()}


def _of_model(folder: Path) -> Iterator[Path]:
    for part in ("transformer", "vae"):
        yield from sorted(file for file in (folder / part).glob("*") if file.suffix in _PARTS)
