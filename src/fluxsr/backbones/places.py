"""Where a model lies: a local folder, the Hub, or this package; and what an error on the way there means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from os import PathLike
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from fluxsr.errors import ModelError, is_untranslatable

BUNDLED = "bundled"
CONFIG_FILE = "fluxsr_config.json"
INDEX_FILE = "model_index.json"  # of a saved pipeline, with its settings
WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILES = ("adapter_model.safetensors", "adapter_config.json")  # a folder that PEFT itself saved
ENCODER_FILE = "vae_encoder_lora.safetensors"  # LoRA of the autoencoder's encoder
PROMPT_FILE = "prompt_embeds.safetensors"
PROMPT_PICKLES = ("t5_embedding.pth", "clip_embedding.pth")
COMPONENT_FOLDER = "prompt"  # the fixed prompt as a component of a saved pipeline
COMPONENT_FILE = f"{COMPONENT_FOLDER}/diffusion_pytorch_model.safetensors"
AUTOENCODER = "ae.safetensors"  # its name on FLUX.1-dev's page


@contextmanager
def in_one_line(model: Path | str, part: str) -> Iterator[None]:
    """Turn the errors of reading a part into ModelErrors of one line; the libraries raise many kinds.

    Bugs, missing memory and a lost accelerator are raised as they are.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ModelError) or is_untranslatable(error):
            raise
        raise ModelError(explain(model, part, error)) from error


def explain(model: Path | str, part: str, error: Exception) -> str:
    """What went wrong while loading, in one line."""
    for cause in _causes(error):  # diffusers wraps the hub's errors and then calls a gated model unknown
        if isinstance(cause, GatedRepoError):
            return (
                f"{model} is gated: accept its licence at https://huggingface.co/{model}, then run `hf auth login` "
                "with a token of that account"
            )
        if isinstance(cause, RepositoryNotFoundError):
            return f"{model} is not on the Hub, or private: check the name, or run `hf auth login`"
        if isinstance(cause, OfflineModeIsEnabled):
            return f"{model} is not in the local cache, and offline mode is on; unset HF_HUB_OFFLINE to fetch it"
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code == 401:
            return f"the Hub refuses your token for {model}; run `hf auth login` again"
    return f"cannot load {part} of {model}: {first_line(error)}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: Exception) -> str:
    """The first line of an error's message that is not empty, or else the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def explain_push(repository: str, error: Exception) -> str:
    """What went wrong while writing to the Hub, in one line."""
    for cause in _causes(error):
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        if isinstance(cause, OfflineModeIsEnabled):
            return f"cannot push to {repository}: offline mode is on; unset HF_HUB_OFFLINE"
        if status == 401 or isinstance(cause, LocalTokenNotFoundError):
            return (
                f"cannot push to {repository}: the Hub does not know you; `hf auth login` with a token that may write"
            )
        if status == 403:
            return (
                f"cannot push to {repository}: your token may not write there; take a token with write access, or an "
                "owner that is you or an organisation of yours"
            )
        if status == 404:
            return f"cannot push to {repository}: it is not on the Hub, or your token may not see it"
    return f"cannot push to {repository}: {first_line(error)}"


def is_hub_id(model: str | Path) -> bool:
    """Whether it is written as an id (owner/name), and no folder has that name."""
    name = str(model)
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).is_dir()


def folder_of(model: str | PathLike[str]) -> Path | str:
    """A local folder as a Path, the bundled model's, or a Hub id as it is."""
    if model == BUNDLED:
        path = Path(str(resources.files("fluxsr") / "pretrained"))
        if not (path / "transformer").is_dir():
            raise ModelError("the bundled weights are missing from this installation; install fluxsr again")
        return path
    if Path(model).is_dir():
        return Path(model)
    if isinstance(model, str) and is_hub_id(model):
        return model
    raise ModelError(
        f"no model folder {model}; give a folder or file that exists, a Hub id (owner/name), or '{BUNDLED}'"
    )


def download(
    repository: str, files: list[str], part: str, revision: str | None = None, token: str | bool | None = None
) -> Path:
    """A local folder with some files of a repository on the Hub.

    Args:
        files: patterns; "*" matches folders too, and a model's repository would come down whole.
        part: what they are, for the error.
        revision: branch, tag or commit; None takes the main branch.
        token: None takes that of ``hf auth login``.

    Raises:
        ModelError: not reachable, gated or unknown.
    """
    with in_one_line(repository, part):
        return Path(snapshot_download(repository, allow_patterns=files, revision=revision, token=token))
