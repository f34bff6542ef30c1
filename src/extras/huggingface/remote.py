"""Fetching a model from the HuggingFace hub, and putting one there."""

import re
from pathlib import Path
from typing import NoReturn

from src.errors import InputError
from src.extras.huggingface.files import SMALL_FILES, WEIGHTS


def locate(name: str, revision: str | None = None) -> Path:
    """The folder of a model: a folder itself, or a model of the hub, fetched: its JSON files, vocabulary and tensors.

    No code is fetched, and PyTorch's own files only where there are no safetensors.

    Raises:
        InputError: there is no such folder and the hub has no such model, or cannot be reached.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise InputError(f"--revision {revision} is for a model of the hub: {name} is a folder here")
        return Path(name)
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise InputError(f"there is no folder {name}, and it is no name of a model on the hub")
    from huggingface_hub import snapshot_download

    for weights in WEIGHTS:
        stem, suffix = weights.rsplit(".", 1)
        patterns = [*SMALL_FILES, weights, f"{weights}.index.json", f"{stem}-*-of-*.{suffix}"]
        try:
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
        except Exception as error:  # of many kinds: no network, no model, no permission
            _refuse(f"there is no folder {name}, and it cannot be fetched from the hub", error)
        if any(folder.glob(f"{stem}*.{suffix}")):
            return folder
    raise InputError(f"{name} on the hub has no weights: neither {' nor '.join(WEIGHTS)}")


def check_token() -> None:
    """Whether this user can write to the hub at all.

    Raises:
        InputError: there is no token.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise InputError("--push needs a token of the hub: log in with `hf auth login`, or set HF_TOKEN")


def push(folder: Path, repository: str) -> str:
    """Put the files of a folder into a repository of the hub, which is made if it is not there; gives its address.

    Raises:
        InputError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # of many kinds: no network, no permission, no such name
        _refuse(f"{folder} is written, but {repository} on the hub could not be", error)
    return str(address)


def _refuse(what: str, error: Exception) -> NoReturn:
    said = next(iter(str(error).splitlines()), "") or type(error).__name__
    raise InputError(f"{what}: {said}") from error
