"""Publish adapters and models on the Hub, with card, licence and notice, in one commit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from fluxsr.backbones.adapter import CONFIG_FILE, AdapterConfig, load_config
from fluxsr.backbones.loading import ADAPTER_FILES
from fluxsr.backbones.lora import lora_file
from fluxsr.backbones.places import (
    COMPONENT_FOLDER,
    ENCODER_FILE,
    PEFT_FILES,
    WEIGHTS_FILE,
    download,
    explain_push,
    folder_of,
)
from fluxsr.backbones.prompts import FILE, load_prompt
from fluxsr.errors import InputError, ModelError, OutputError, first_line, is_untranslatable
from fluxsr.hub.contents import CardOverrides, contents
from fluxsr.version import __version__

_PUSH = ("repo_id", "private", "token", "commit_message", "create_pr")
PUSH_OPTIONS = (*_PUSH, *(entry.name for entry in fields(CardOverrides)))
# Files that a push deletes from a repository if they are not in the folder, because an old LoRA might be loaded.
OURS = [CONFIG_FILE, WEIGHTS_FILE, *PEFT_FILES, ENCODER_FILE, FILE, "*_embedding.pth", "model_index.json"]
OURS += [f"{part}/*" for part in ("transformer", "vae", COMPONENT_FOLDER)]


@dataclass(frozen=True)
class Adapter(os.PathLike[str]):
    """A folder with LoRA, fixed prompt and config, which can be passed wherever an adapter is expected."""

    folder: Path
    config: AdapterConfig
    name: str  # the folder or Hub id that was requested

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, token: str | bool | None = None
    ) -> Adapter:
        """Find an adapter in a folder or on the Hub, and read its config.

        Raises:
            ModelError: the adapter is missing or incomplete.
        """
        folder = folder_of(source)
        if isinstance(folder, str):
            folder = download(folder, ADAPTER_FILES, "adapter", revision=revision, token=token)
        config = load_config(folder)
        load_prompt(folder)
        if lora_file(folder) is None:
            raise ModelError(f"no {WEIGHTS_FILE} in {folder}; give the folder of an adapter")
        return cls(folder, config, str(source))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish the adapter on the Hub; see ``push_folder`` for options, result and errors."""
        return push_folder(self.folder, repo_id, **options)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return self.name


def checked_id(repo_id: str) -> str:
    """Check that a repository's id has the form owner/name, and return it.

    Raises:
        InputError: the Hub does not accept the id.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"'{repo_id}' is not a repository id: {first_line(error)}") from error
    if repo_id.count("/") != 1:
        raise InputError(f"'{repo_id}' is not a repository id; write owner/name")
    return repo_id


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    **overrides: Any,
) -> str:
    """Publish the folder of an adapter or a model on the Hub with a model card, its licence and a notice.

    Args:
        folder: folder of an adapter or a whole model, with its settings and prompt.
        repo_id: owner/name; the repository is created if it does not exist.
        private: whether a new repository is private; True refuses an existing public one.
        token: Hub token; None uses that of ``hf auth login``.
        commit_message: message of the commit.
        create_pr: open a pull request instead of committing.
        overrides: fields of ``contents.CardOverrides`` that the folder does not state: base_model, license,
            license_file, recipe, results.

    Returns:
        URL of the repository or of the pull request.

    Raises:
        InputError: an invalid repo_id, a file that cannot be read, or a licence that contradicts the base's.
        ModelError: the folder is incomplete, the base of an adapter is unknown, or FLUX.1-dev's licence text is
            missing.
        OutputError: the Hub cannot be reached or refuses the push.
    """
    files = contents(folder, checked_id(repo_id), CardOverrides(**overrides), token)
    return push(files, repo_id, private=private, token=token, message=commit_message, create_pr=create_pr)


def push(
    files: Mapping[str, Path | bytes],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    message: str | None = None,
    create_pr: bool = False,
) -> str:
    """Create the repository if necessary, and commit these files at once.

    Files of an older push that would be loaded with the model are deleted. This happens only if the repository has a
    ``fluxsr_config.json`` or ``prompt/``, which shows that fluxsr pushed them; otherwise the push is refused.

    Arguments and result are those of ``push_folder``; ``files`` are those of ``contents``.

    Raises:
        OutputError: the Hub cannot be reached or refuses the push, the repository is public although ``private`` is
            True, or it holds model files that fluxsr did not push.
    """
    api = HfApi(token=token, library_name="fluxsr", library_version=__version__)
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise OutputError(
                f"{repo_id} already exists and is public; make it private in its settings, or choose another"
            )
        there = list(filter_repo_objects(api.list_repo_files(repo_id), allow_patterns=OURS))
        if there and {CONFIG_FILE, f"{COMPONENT_FOLDER}/config.json"}.isdisjoint(there):
            raise OutputError(
                f"{repo_id} holds {', '.join(there[:3])}, which fluxsr did not put there and which would be loaded "
                "with the new model; delete them there, or choose another repository"
            )
        done = api.create_commit(
            repo_id,
            [CommitOperationAdd(name, content) for name, content in files.items()]
            + [CommitOperationDelete(name) for name in there if name not in files],
            commit_message=message or f"Upload with fluxsr {__version__}",
            create_pr=create_pr,
        )
    except OutputError:
        raise
    except Exception as error:  # huggingface_hub raises many types, and each becomes one line
        if is_untranslatable(error):
            raise
        raise OutputError(explain_push(repo_id, error)) from error
    return str(done.pr_url or address)
