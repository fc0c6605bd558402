"""Where a model lies: a local folder, the Hub, or this package; and what an error on the way there means."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from fluxsr.errors import ModelError

BUNDLED = "bundled"


def explain(model: Path | str, part: str, error: Exception) -> str:
    """What went wrong while loading, in one line."""
    cause: BaseException | None = error
    while cause is not None:  # diffusers wraps the hub's errors and then calls a gated model unknown
        if isinstance(cause, GatedRepoError):
            return (
                f"{model} is gated: accept its licence at https://huggingface.co/{model}, then run `hf auth login` "
                "with a token of that account"
            )
        if isinstance(cause, RepositoryNotFoundError):
            return f"{model} is not on the Hub, or private: check the name, or run `hf auth login`"
        cause = cause.__cause__ or cause.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"cannot load {part} of {model}: {lines[0]}"


def folder_of(model: str | Path) -> Path | str:
    """A local folder as a Path, the bundled model's, or a Hub id as it is."""
    if model == BUNDLED:
        path = Path(str(resources.files("fluxsr") / "pretrained"))
        if not (path / "transformer").is_dir():
            raise ModelError("the bundled weights are missing from this installation; install fluxsr again")
        return path
    if Path(model).is_dir():
        return Path(model)
    if isinstance(model, str) and model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return model
    raise ModelError(
        f"no model folder {model}; give a folder or file that exists, a Hub id (owner/name), or '{BUNDLED}'"
    )


def download(repository: str, files: list[str], part: str) -> Path:
    """A local folder with some files of a repository on the Hub.

    Args:
        files: patterns; "*" matches folders too, and a model's repository would come down whole.
        part: what they are, for the error.

    Raises:
        ModelError: not reachable, gated or unknown.
    """
    try:
        return Path(snapshot_download(repository, allow_patterns=files))
    except Exception as error:  # the hub raises many kinds; all end in one line
        raise ModelError(explain(repository, part, error)) from error
