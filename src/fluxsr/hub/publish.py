"""Adapters and models onto the Hub: checked, with their card, licence and notice, in one commit."""

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
from fluxsr.backbones.lora_files import PEFT_FILES, WEIGHTS_FILE, lora_file
from fluxsr.backbones.places import COMPONENT_FOLDER, download, explain_push, folder_of
from fluxsr.backbones.prompts import FILE, load_prompt
from fluxsr.errors import InputError, ModelError, OutputError, is_untranslatable
from fluxsr.hub.contents import Told, contents
from fluxsr.version import __version__

PUSH_OPTIONS = ("repo_id", "private", "token", "commit_message", "create_pr", *(entry.name for entry in fields(Told)))
# What a push takes from a repository where it is no longer in the folder: an old LoRA might be loaded for the new.
OURS = [CONFIG_FILE, WEIGHTS_FILE, *PEFT_FILES, FILE, "*_embedding.pth", "model_index.json"]
OURS += [f"{part}/*" for part in ("transformer", "vae", COMPONENT_FOLDER)]


@dataclass(frozen=True)
class Adapter(os.PathLike[str]):
    """A FluxSR adapter: LoRA, fixed prompt and config in a folder. Wherever an adapter is wanted, it can be given.

    Attributes:
        folder: where its files are.
        config: what travels with it: T_L, guidance, rank, base.
        name: what it is called in messages: the folder or Hub id that was asked for.
    """

    folder: Path
    config: AdapterConfig
    name: str

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, token: str | bool | None = None
    ) -> Adapter:
        """Find an adapter in a folder or on the Hub, and read its config.

        Args:
            source: folder or Hub id.
            revision: branch, tag or commit on the Hub.
            token: of the Hub; None takes that of ``hf auth login``.

        Raises:
            ModelError: not there, or incomplete.
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
        """Put it on the Hub with model card, licence and notice; options, result and errors are ``push_folder``'s."""
        return push_folder(self.folder, repo_id, **options)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return self.name


def checked_id(repo_id: str) -> str:
    """A repository's id, owner and name.

    Raises:
        InputError: the Hub would not take it.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"'{repo_id}' is no id of a repository: {str(error).splitlines()[0]}") from error
    if repo_id.count("/") != 1:
        raise InputError(f"'{repo_id}' is no id of a repository; write owner/name")
    return repo_id


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    **told: Any,
) -> str:
    """Put an adapter's or a model's folder on the Hub with a model card, its licence and a notice.

    Args:
        folder: with fluxsr_config.json and prompt; of an adapter, or of a whole model.
        repo_id: owner/name; made if it is not there.
        private: for a new repository; True refuses one that is there and public.
        token: of the Hub; None takes that of ``hf auth login``.
        create_pr: open a pull request instead of committing.
        told: what the folder does not say, see ``contents.Told``: base_model, license, license_file, recipe, results.

    Returns:
        Address of the repository, or of the pull request.

    Raises:
        InputError: an impossible repo_id, a file that cannot be read, or terms that contradict the base's.
        ModelError: an incomplete folder, an adapter without a known base, or FLUX.1-dev's licence text not found.
        OutputError: the Hub cannot be reached, or does not let you.
    """
    files = contents(folder, checked_id(repo_id), Told(**told), token)
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
    """Make the repository if need be, and commit these files at once; what it has of an older push goes.

    Files that would be loaded with the model are deleted where ``fluxsr_config.json`` shows that they were pushed
    by fluxsr. Elsewhere they are in the way.

    Args:
        files: path in the repository -> file here or content, as ``contents`` gives them.

    Returns:
        Address of the repository, or of the pull request.

    Raises:
        OutputError: not reachable, not allowed, there already and public where private was asked for, or holding
            files in the way.
    """
    api = HfApi(token=token, library_name="fluxsr", library_version=__version__)
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise OutputError(
                f"{repo_id} is there already, and public; make it private in its settings, or take another"
            )
        there = list(filter_repo_objects(api.list_repo_files(repo_id), allow_patterns=OURS))
        if there and CONFIG_FILE not in there:
            raise OutputError(
                f"{repo_id} holds {', '.join(there[:3])}, which fluxsr did not put there and which would be loaded "
                "with the new model; delete them there, or take another repository"
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
    except Exception as error:  # the hub raises many kinds; all end in one line
        if is_untranslatable(error):
            raise
        raise OutputError(explain_push(repo_id, error)) from error
    return str(done.pr_url or address)
