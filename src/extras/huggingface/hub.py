"""A model's folder, here or on the HuggingFace hub: its files are fetched, its tensors read, and never any code."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from src.errors import InputError
from src.extras.huggingface.json_files import CONFIG, GENERATION, read_json

# first what holds tensors and nothing else
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TARGET_TOKENIZER = "target_tokenizer"  # subfolder, where the target of a translation has a tokenizer of its own
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
SMALL_FILES = (
    CONFIG,
    GENERATION,
    *TOKENIZERS,
    *("vocab.json", "merges.txt", "vocab.txt"),
    *(f"{TARGET_TOKENIZER}/{name}" for name in TOKENIZERS),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", f"*_Pooling/{CONFIG}"),
)


def locate(name: str, revision: str | None = None) -> Path:
    """Find the folder of a model, or fetch one of the hub: its JSON, vocabulary and tensors, and no code.

    PyTorch's own files are fetched only where there are no safetensors.
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
    """Refuse to go on where this user cannot write to the hub at all."""
    from huggingface_hub import get_token

    if not get_token():
        raise InputError("--push needs a token of the hub: log in with `hf auth login`, or set HF_TOKEN")


def push(folder: Path, repository: str) -> str:
    """Put the files of a folder into a repository of the hub, which is made if it is not there; gives its address."""
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


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a model: safetensors where there are any, else PyTorch's files; in one file or in shards."""
    for name in WEIGHTS:
        read = _read_safetensors if name.endswith(".safetensors") else _read_pickle
        if (folder / name).is_file():
            return read(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _read_shards(index, read)
    raise InputError(f"{folder} has no weights: neither {' nor '.join(WEIGHTS)}, whole or in shards")


def _read_shards(index: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise InputError(f"{index} has no weight_map from tensors to files")
    tensors: dict[str, Tensor] = {}
    for file in dict.fromkeys(files.values()):
        if file != Path(file).name:
            raise InputError(f"{index} names {file!r}, which is no file beside it")
        if not (index.parent / file).is_file():
            raise InputError(f"{index.parent} has no {file}, which {index.name} names: fetch it, too")
        tensors |= read(index.parent / file)
    missing = files.keys() - tensors.keys()
    if missing:
        raise InputError(f"{index} names the tensor {min(missing)}, but {files[min(missing)]} has it not")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        path.open("rb").close()  # of a file that may not be read safetensors says that there is none
        return load_file(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or damaged: {error}") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds more than tensors, or is damaged: it is not loaded") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (EOFError, RuntimeError) as error:
        raise InputError(f"{path} is truncated or damaged") from error
    if not isinstance(found, dict) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in found.items()):
        raise InputError(f"{path} holds more than tensors by name")
    return found
