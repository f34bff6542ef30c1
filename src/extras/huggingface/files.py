"""Reading a folder in HuggingFace's format: its JSON files and its tensors, never any code."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from src.errors import InputError
from src.extras.huggingface.settings import shown

# first what holds tensors and nothing else
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TARGET_TOKENIZER = "target_tokenizer"  # subfolder, where the target of a translation has a tokenizer of its own

TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    *TOKENIZERS,
    *("vocab.json", "merges.txt", "vocab.txt"),
    *(f"{TARGET_TOKENIZER}/{name}" for name in TOKENIZERS),
)


def read_json(path: Path, *, needed: bool = False) -> dict[str, Any]:
    """What a JSON file holds; nothing, if it is not there and not needed.

    Raises:
        InputError: it is missing though needed, or no JSON object.
    """
    if not path.is_file():
        if needed:
            raise InputError(f"{path.parent} has no {path.name}: it is no model in HuggingFace's format")
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} does not hold an object: it begins {shown(found)}")
    return found


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model: safetensors where there are any, else PyTorch's files; in one file or in shards.

    Raises:
        InputError: there are none, a shard is missing, or a file is damaged or holds more than tensors.
    """
    for name in WEIGHTS:
        read = _read_safetensors if name.endswith(".safetensors") else _read_pickle
        if (folder / name).is_file():
            return read(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _read_shards(index, read)
    raise InputError(f"{folder} has no weights: neither {' nor '.join(WEIGHTS)}, whole or in shards")


def _read_shards(index: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise InputError(f"{index} has no weight_map from tensors to files")
    tensors: dict[str, Tensor] = {}
    for file in dict.fromkeys(places.values()):
        if file != Path(file).name:
            raise InputError(f"{index} names {file!r}, which is no file beside it")
        if not (index.parent / file).is_file():
            raise InputError(f"{index.parent} has no {file}, which {index.name} names: fetch it, too")
        tensors |= read(index.parent / file)
    missing = places.keys() - tensors.keys()
    if missing:
        raise InputError(f"{index} names the tensor {min(missing)}, but {places[min(missing)]} has it not")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or damaged: {error}") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds more than tensors, or is damaged: it is not loaded") from error
    except (EOFError, OSError, RuntimeError) as error:
        raise InputError(f"{path} is truncated or damaged") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise InputError(f"{path} holds more than tensors by name")
    return found
