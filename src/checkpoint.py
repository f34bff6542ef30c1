"""Reading checkpoints: one file carries the weights, the network's shape, the tokenizer and the run's configuration."""

import pickle
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from tokenizers import Tokenizer
from torch import nn

from src.errors import InputError
from src.models import ARCHITECTURES

# without these a file is no checkpoint of this project
REQUIRED_KEYS = ("architecture", "model_config", "tokenizer", "special_tokens", "state_dict", "config")
HEADER = "meta.pt"  # in the folder of a sharded checkpoint: all but weights and optimizer state


M = TypeVar("M", bound=nn.Module)


class Trained(NamedTuple, Generic[M]):
    """A network as it was trained, in evaluation mode, with its tokenizer."""

    model: M
    tokenizer: Tokenizer
    special_tokens: dict[str, str]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds. Only tensors and plain types are read: no code in the file can run.

    Raises:
        InputError: the file is missing, damaged, or no checkpoint of this project.
    """
    path = Path(path)
    if path.is_dir():
        sharded = (path / HEADER).is_file()
        raise InputError(
            f"{path} is a sharded checkpoint: make one file of it by the verb consolidate"
            if sharded
            else f"{path} is a folder: name a checkpoint file in it, such as checkpoints/last.ckpt"
        )
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    try:
        # a flipped byte would load as a wrong weight: only the archive's own checksums notice it
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise InputError(f"checkpoint {path} is damaged (checksum of {damaged}): use another one")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise InputError(f"checkpoint {path} is truncated or damaged: use another one") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"checkpoint {path} holds more than tensors and plain values: it is not loaded") from error
    missing = [key for key in REQUIRED_KEYS if key not in checkpoint]
    if missing:
        raise InputError(f"{path} is no checkpoint of this project: it has no {missing[0]!r}")
    return checkpoint


def read_header(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds beside its weights; it may also be the folder of a sharded one.

    Raises:
        InputError: as :func:`read_checkpoint`.
    """
    path = Path(path)
    if not path.is_dir():
        return read_checkpoint(path)
    if not (path / HEADER).is_file():
        raise InputError(f"{path} is a folder, and not that of a sharded checkpoint: name a file or folder below it")
    try:
        header = torch.load(path / HEADER, map_location="cpu", weights_only=True)
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"{path / HEADER} is truncated or damaged: use another checkpoint") from error
    missing = [key for key in REQUIRED_KEYS if key not in header and key != "state_dict"]
    if missing:
        raise InputError(f"{path} is no checkpoint of this project: it has no {missing[0]!r}")
    return header


def load_trained(path: str | Path, model_class: type[M]) -> Trained[M]:
    """The network of a checkpoint, on the CPU in float32.

    Raises:
        InputError: as :func:`read_checkpoint`, or for a checkpoint of another architecture.
    """
    return restore(read_checkpoint(path), path, model_class)


def restore(checkpoint: dict[str, Any], path: str | Path, model_class: type[M]) -> Trained[M]:
    """As :func:`load_trained`, from a checkpoint that was read already; ``path`` names it in errors."""
    architecture, config_class = next((name, c) for name, (c, m) in ARCHITECTURES.items() if m is model_class)
    if checkpoint["architecture"] != architecture:
        raise InputError(f"checkpoint {path} holds a {checkpoint['architecture']}: this needs a {architecture}")
    model = model_class(config_class(**checkpoint["model_config"]))
    weights = {key.removeprefix("model."): tensor for key, tensor in checkpoint["state_dict"].items()}
    model.load_state_dict(weights)
    return Trained(model.eval(), Tokenizer.from_str(checkpoint["tokenizer"]), checkpoint["special_tokens"])


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        InputError: there is no folder to write it into.
    """
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to write {path.name} into")
    aside = path.with_name(path.name + ".part")
    torch.save(checkpoint, aside)
    aside.replace(path)


def check_compatible(checkpoint: dict[str, Any], architecture: str, config: dict[str, Any], tokenizer: str) -> None:
    """Whether a run with this network and tokenizer can go on from a checkpoint.

    Raises:
        InputError: naming the first thing that differs.
    """
    held = checkpoint.get("architecture")
    if held != architecture:
        raise InputError(f"the checkpoint holds a {held}: this configuration trains a {architecture}")
    if checkpoint["tokenizer"] != tokenizer:
        raise InputError(
            "the checkpoint was trained with another tokenizer: name the tokenizer.json of its run, or the one that "
            "import wrote beside it, by --data.tokenizer"
        )
    # through its class, which knows what older checkpoints did not say
    was = _shape(asdict(ARCHITECTURES[architecture][0](**checkpoint["model_config"])))
    now = _shape(config)
    for key, value in now.items():
        if was.get(key) != value:
            raise InputError(
                f"the checkpoint has {key} {was.get(key)}, this configuration {value}: set it to {was.get(key)}"
            )


def _shape(config: dict[str, Any]) -> dict[str, Any]:
    """What of a network's configuration its weights depend on."""
    free = ["init_std", "attention", "window", "dilation", "global_tokens"]
    if config.get("positions", "learned") != "learned":
        free.append("max_seq_len")
    shape = {key: value for key, value in config.items() if "dropout" not in key and key not in free}
    return {**shape, "d_ff": config["d_ff"] or 4 * config["d_model"]}
