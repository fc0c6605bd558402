"""Locate models in local folders, on the Hub or in this package, and explain errors of loading and pushing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from fluxsr.errors import ModelError, first_line, is_untranslatable

BUNDLED = "bundled"
CONFIG_FILE = "fluxsr_config.json"
INDEX_FILE = "model_index.json"  # components and settings of a saved pipeline
WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILES = ("adapter_model.safetensors", "adapter_config.json")  # files that PEFT itself saves
ENCODER_FILE = "vae_encoder_lora.safetensors"  # LoRA of the autoencoder's encoder
PROMPT_FILE = "prompt_embeds.safetensors"
PROMPT_PICKLES = ("t5_embedding.pth", "clip_embedding.pth")
NOT_LORA = (PROMPT_FILE, *PROMPT_PICKLES, ENCODER_FILE)
WEIGHT_SUFFIXES = (".safetensors", ".pth")
COMPONENT_FOLDER = "prompt"  # the fixed prompt as a component of a saved pipeline
COMPONENT_FILE = f"{COMPONENT_FOLDER}/diffusion_pytorch_model.safetensors"
AUTOENCODER = "ae.safetensors"  # file name in FLUX.1-dev's repository
TAEF2 = "taef2.safetensors"  # the only file in madebyollin/taef2, which has no configuration
AUTOENCODER_FILES = ["config.json", "diffusion_pytorch_model.*", TAEF2]  # of an autoencoder by itself


@contextmanager
def in_one_line(model: Path | str, part: str) -> Iterator[None]:
    """Turn the many types of errors that libraries raise while reading a part into a ModelError of one line.

    Bugs, missing memory and a lost accelerator are re-raised unchanged.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ModelError) or is_untranslatable(error):
            raise
        raise ModelError(explain(model, part, error)) from error


def explain(model: Path | str, part: str, error: Exception) -> str:
    """Return the cause of a loading error and its remedy in one line."""
    for cause in _causes(error):  # diffusers wraps the Hub's errors, and reports a gated model as unknown
        if isinstance(cause, GatedRepoError):
            return (
                f"{model} is gated; accept its licence at https://huggingface.co/{model}, then run `hf auth login` "
                "with a token of that account"
            )
        if isinstance(cause, (RepositoryNotFoundError, HFValidationError)):
            return (
                f"{model} is neither a folder here nor a model on the Hub (or it is private); check the name, or run "
                "`hf auth login`"
            )
        if isinstance(cause, OfflineModeIsEnabled):
            return (
                f"{model} is neither a folder here nor in the local cache, and offline mode is on; unset "
                "HF_HUB_OFFLINE to fetch it"
            )
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code == 401:
            return f"the Hub refuses your token for {model}; run `hf auth login` again"
    if any(isinstance(cause, LocalEntryNotFoundError) for cause in _causes(error)):
        return f"{model} is neither a folder here nor in the local cache, and the Hub cannot be reached"
    return f"cannot load {part} of {model}: {first_line(error)}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def explain_push(repository: str, error: Exception) -> str:
    """Return the cause of an error while writing to the Hub, and its remedy, in one line."""
    for cause in _causes(error):
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        if isinstance(cause, OfflineModeIsEnabled):
            return f"cannot push to {repository}: offline mode is on; unset HF_HUB_OFFLINE"
        if status == 401 or isinstance(cause, LocalTokenNotFoundError):
            return (
                f"cannot push to {repository}: you are not logged in; run `hf auth login` with a token that may write"
            )
        if status == 403:
            return (
                f"cannot push to {repository}: your token may not write there; use a token with write access, or your "
                "own name or organisation as owner"
            )
        if status == 404:
            return f"cannot push to {repository}: it does not exist, or your token has no access to it"
    return f"cannot push to {repository}: {first_line(error)}"


def is_hub_id(model: str | Path) -> bool:
    """Return whether a name has the form owner/name and is not a folder."""
    name = str(model)
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).is_dir()


def public_name(model: str | PathLike[str]) -> str:
    """Return a Hub id unchanged, and the name of a local file or folder without the folders above it."""
    return str(model) if is_hub_id(str(model)) else Path(model).resolve().name


def folder_of(model: str | PathLike[str]) -> Path | str:
    """Return the path of a local folder or of the bundled model; return a Hub id unchanged."""
    if model == BUNDLED:
        path = Path(str(resources.files("fluxsr") / "pretrained"))
        if not (path / "transformer").is_dir():
            raise ModelError("the bundled weights are missing from this installation; install fluxsr again")
        return path
    if Path(model).is_dir():
        return Path(model)
    if isinstance(model, str) and is_hub_id(model):
        return model
    raise ModelError(f"no model folder {model}; pass an existing folder or file, a Hub id (owner/name), or '{BUNDLED}'")


def autoencoder_folder(vae: str | PathLike[str]) -> Path:
    """Return the folder of an autoencoder by itself. One on the Hub is downloaded.

    Raises:
        ModelError: there is no such folder or repository.
    """
    if Path(vae).is_dir():
        return Path(vae)
    if is_hub_id(str(vae)):
        return download(str(vae), AUTOENCODER_FILES, "vae")
    raise ModelError(f"no autoencoder {vae}; pass a folder with config.json and weights, or a Hub id (owner/name)")


def download(repository: str, files: list[str], part: str, **options: Any) -> Path:
    """Download some files of a repository on the Hub, and return their local folder.

    Args:
        repository: Hub id.
        files: file patterns. "*" would also match folders and download a whole model.
        part: name of the files for error messages.
        options: options of ``snapshot_download``, such as ``revision`` and ``token``.

    Raises:
        ModelError: the repository is unknown, gated or not reachable.
    """
    with in_one_line(repository, part):
        return Path(snapshot_download(repository, allow_patterns=files, **options))


def download_adapter(repository: str, files: list[str], **options: Any) -> Path:
    """Download the named files of an adapter; if they include no weights, all safetensors files of the top folder."""
    folder = download(repository, files, "adapter", **options)
    if any(path.suffix in WEIGHT_SUFFIXES and path.name not in NOT_LORA for path in folder.rglob("*")):
        return folder
    return download(repository, ["*.safetensors"], "adapter", ignore_patterns=["*/*"], **options)
