"""Check the folder of a saved pipeline before it is read or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluxsr.backbones.adapter import AdapterConfig, load_config
from fluxsr.backbones.encoder_lora import encoder_file
from fluxsr.backbones.lora import lora_file
from fluxsr.backbones.places import BUNDLED, COMPONENT_FOLDER, CONFIG_FILE, INDEX_FILE, PROMPT_FILE
from fluxsr.errors import InputError, ModelError, OutputError

_LOAD_OPTIONS = {"adapter", "device", "memory", "config_folder", "compile"}
_HUB_OPTIONS = {"cache_dir", "force_download", "proxies", "local_files_only", "token", "revision"}


def check_saved(source: str, pipeline: Any, options: dict[str, Any]) -> None:
    """Check that diffusers' ``from_pretrained`` can load a folder or repository.

    Args:
        source: folder or Hub id.
        pipeline: class of the pipeline.
        options: options of ``from_pretrained``.

    Raises:
        InputError: one of the options belongs to ``fluxsr.load``.
        ModelError: the source has no complete pipeline of this class, or has an adapter that must be fused.
    """
    for name in _LOAD_OPTIONS & options.keys():
        raise InputError(f"from_pretrained has no option {name}; call fluxsr.load(model, {name}=...)")
    for name in ("dtype", "torch_dtype"):
        if isinstance(options.get(name), str):
            raise InputError(f"{name} is '{options[name]}'; pass a torch.dtype, or call fluxsr.load(model, dtype=...)")
    folder, hint = Path(source), f"call fluxsr.load('{source}')"
    if source == BUNDLED:
        raise ModelError(f"from_pretrained takes a folder or a Hub id; {hint}")
    if "prompt" in options:
        return
    if folder.is_dir() and not (folder / INDEX_FILE).is_file():
        raise ModelError(f"{source} has no {INDEX_FILE}, which diffusers needs; {hint}")
    index = pipeline.load_config(source, **{key: options[key] for key in _HUB_OPTIONS & options.keys()})
    if index.get("_class_name") != pipeline.__name__ or "prompt" not in index:
        raise ModelError(
            f"{source} was not saved by {pipeline.__name__} with its prompt; {hint}, if necessary with adapter=..."
        )
    if lora := lora_file(folder) or encoder_file(folder):
        raise ModelError(f"{lora} must be fused, but from_pretrained does not do this; {hint}")
    if (folder / CONFIG_FILE).is_file() and load_config(folder).registered != AdapterConfig.of(index, "").registered:
        raise ModelError(f"{CONFIG_FILE} and {INDEX_FILE} in {source} differ; {hint}, which reads the first")


def check_free(folder: Path, of: str) -> None:
    """Check that a model can be saved in a folder without overwriting other files.

    An earlier save of the same pipeline class may be overwritten. A LoRA in the folder is always an error, because
    loading would fuse it a second time.

    Args:
        folder: folder, which need not exist.
        of: name of the pipeline class, as in ``model_index.json``.

    Raises:
        OutputError: the folder holds a LoRA, or files of another model.
    """
    if lora := lora_file(folder) or encoder_file(folder):
        raise OutputError(f"{lora} would be fused a second time on loading; move it, or save elsewhere")
    index = folder / INDEX_FILE
    if index.is_file() and f'"_class_name": "{of}"' in index.read_text(encoding="utf-8", errors="replace"):
        return
    names = (INDEX_FILE, CONFIG_FILE, PROMPT_FILE, "transformer", "vae", COMPONENT_FOLDER)
    if found := [name for name in names if (folder / name).exists()]:
        raise OutputError(f"{folder} holds {', '.join(found)}, which {of} did not save; save elsewhere")
