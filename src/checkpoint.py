"""Reading checkpoints: one file carries the weights, the network's shape, the tokenizer and the run's configuration."""

import json
import pickle
import sys
import zipfile
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import yaml
from tokenizers import Tokenizer
from torch import Tensor, nn

from src.architectures import architectures
from src.atomic import atomic_file, damaged
from src.discovery import parts
from src.errors import InputError
from src.files import check_folder_of

# without these a file is no checkpoint of this project
REQUIRED_KEYS = {
    "architecture": str,
    "model_config": dict,
    "tokenizer": str,
    "special_tokens": dict,
    "state_dict": dict,
    "config": str,
}
HEADER = "meta.pt"  # in the folder of a sharded checkpoint: all but weights and optimizer state
AVERAGED = "averaged.pt"  # in that folder: averaged weights, where those that are trained lie in the shards
WEIGHTS = ("state_dict", "plain_weights", "optimizer_states")  # what a header is without
CHECKSUMS = "checksums.json"  # in that folder: the size and the CRC of each of its files, by their names

M = TypeVar("M", bound=nn.Module)


class Trained(NamedTuple, Generic[M]):
    """A network as it was trained, in evaluation mode, with its tokenizer."""

    model: M
    tokenizer: Tokenizer
    special_tokens: dict[str, str]


def read_checkpoint(path: str | Path, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint. Only tensors and plain types are read: no code in the file can run.

    Args:
        path: of the file.
        mapped: leave the tensors on the disk until they are used. Their bytes are not checked: see :func:`check_bytes`.
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
    if not mapped:
        check_bytes(path)
    checkpoint = _load(path, mapped)
    check_content(checkpoint, path, REQUIRED_KEYS)
    for part in parts("merging"):  # to the weights that the network computes with
        part.merge(checkpoint)
    _check_names(checkpoint, path)
    _repair_average(checkpoint, path)
    check_tied(checkpoint, path)
    return checkpoint


def _load(path: Path, mapped: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (EOFError, OSError, RuntimeError) as error:
        raise InputError(f"checkpoint {path} is truncated or damaged: use another one") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"checkpoint {path} holds more than tensors and plain values: it is not loaded") from error


def check_bytes(path: Path) -> None:
    """Refuse a checkpoint of one file or of shards whose bytes are not as they were written.

    A flipped byte would load as a wrong weight. All of it is read, once by a process: not again until it is changed.
    """
    if path.is_dir():
        check_shards(path)
    else:
        _check_archive(path, path.stat().st_mtime_ns)


@cache
def _check_archive(path: Path, written: int, names: str = "") -> None:
    """Compare the archive's own checksums of what is in it, or of what has a name that ends so."""
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(names):
                    with archive.open(info) as file:
                        while file.read(1 << 24):
                            pass
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise InputError(f"checkpoint {path} is truncated or damaged: use another one") from error


def check_content(checkpoint: Any, path: Path, keys: Iterable[str]) -> None:
    """Refuse what is no checkpoint, or whose parts do not fit together: configuration, weights, tokenizer."""
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path} is no checkpoint of this project: it holds a {type(checkpoint).__name__}")
    for key in keys:
        if not isinstance(checkpoint.get(key), REQUIRED_KEYS[key]):
            raise InputError(f"{path} is no checkpoint of this project: it has no {key!r}, or none that is meant")
    architecture = checkpoint["architecture"]
    if architecture not in architectures():
        known = ", ".join(architectures())
        raise InputError(
            f"checkpoint {path} holds a {architecture}: what is known here is {known}{_missing(checkpoint)}"
        )
    _check_tokenizer(checkpoint, path)
    for part in parts("architectures"):
        for before, now in getattr(part, "MOVED", {}).items():
            checkpoint["config"] = checkpoint["config"].replace(f"class_path: {before}\n", f"class_path: {now}\n")
    try:
        settings = yaml.safe_load(checkpoint["config"])
    except yaml.YAMLError as error:
        raise InputError(f"checkpoint {path} has a configuration that is no YAML") from error
    if not isinstance(settings, dict):
        raise InputError(f"checkpoint {path} has a configuration that is none")
    _check_network(checkpoint, path)


def _missing(checkpoint: dict[str, Any]) -> str:
    """Name the modules of its user's own that a checkpoint was trained with and that are not imported."""
    missing = [f"--allow_class_paths {name}" for name in checkpoint.get("modules", []) if name not in sys.modules]
    return f"; it was trained with a module that is not named here: add {' '.join(missing)}" if missing else ""


def _check_tokenizer(checkpoint: dict[str, Any], path: Path) -> None:
    architecture = architectures()[checkpoint["architecture"]]
    try:
        tokenizer, *_ = [Tokenizer.from_str(checkpoint.get(key, "")) for key in architecture.tokenizers]
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"checkpoint {path} has a tokenizer that cannot be read: {error}") from error
    for name in architecture.special_tokens:
        if name not in checkpoint["special_tokens"]:
            raise InputError(f"checkpoint {path} names no {name}, which a {checkpoint['architecture']} needs")
    for name, token in checkpoint["special_tokens"].items():
        if not isinstance(token, str) or (tokenizer.token_to_id(token) is None and name != "decoder_start_token"):
            raise InputError(f"checkpoint {path} has {name} {token!r}, which its tokenizer does not have")


def network_names(header: dict[str, Any]) -> dict[str, Tensor]:
    """List the tensors, without their content, of the network that a checkpoint describes, by their names in it."""
    entry = architectures()[header["architecture"]]
    with torch.device("meta"):
        network = entry.network(entry.config(**header["model_config"]))
    return {f"model.{name}": tensor for name, tensor in network.state_dict(keep_vars=True).items()}


def tied_names(header: dict[str, Any]) -> list[list[str]]:
    """List the names of each tensor that the network of a checkpoint has under several of them."""
    groups: dict[int, list[str]] = {}
    if header.get("architecture") in architectures():
        for name, tensor in network_names(header).items():
            groups.setdefault(id(tensor), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def check_tied(checkpoint: dict[str, Any], path: Path) -> None:
    """Refuse two values of a tied tensor under its names: the name that is loaded last would win."""
    for first, *others in tied_names(checkpoint):
        for weights in (checkpoint["state_dict"], checkpoint.get("plain_weights", {})):
            for name in others:
                if first in weights and name in weights and not _equal(weights[first], weights[name]):
                    raise InputError(
                        f"checkpoint {path} has two values for a tied weight, {first} and {name}: use another one"
                    )


def _repair_average(checkpoint: dict[str, Any], path: Path) -> None:
    """Let an average that stands under one name of a tied weight be the value of its other names.

    It is certain which is which: the plain weight stands beside the average, and is what the other name has.
    """
    state, plain = checkpoint["state_dict"], checkpoint.get("plain_weights", {})
    for group in tied_names(checkpoint):
        averaged = [name for name in group if name in plain]
        for name in group:
            if len(averaged) != 1 or name in plain or _equal(state[name], state[averaged[0]]):
                continue
            if _equal(state[name], plain[averaged[0]]):
                state[name] = state[averaged[0]]
                print(f"warning: {path}: {name} was not averaged as {averaged[0]} is: read as tied", file=sys.stderr)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def _check_network(checkpoint: dict[str, Any], path: Path) -> None:
    try:
        expected = network_names(checkpoint)
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        missing = _missing(checkpoint)
        raise InputError(f"checkpoint {path} describes a network that cannot be built: {error}{missing}") from error
    for name, tensor in expected.items() if "state_dict" in checkpoint else ():
        held = checkpoint["state_dict"].get(name)
        if not isinstance(held, Tensor) or held.shape != tensor.shape:
            found = f"shape {tuple(held.shape)}" if isinstance(held, Tensor) else "nothing"
            what = f"{name.removeprefix('model.')}: its network has {tuple(tensor.shape)}"
            raise InputError(f"checkpoint {path} has {found} for {what}")


def _check_names(checkpoint: dict[str, Any], path: Path) -> None:
    for name in sorted(checkpoint["state_dict"].keys() - network_names(checkpoint)):
        if name.startswith("model."):
            what = f"{name.removeprefix('model.')}, which its network does not have"
            raise InputError(f"checkpoint {path} has weights of {what}: an extra that is not here may have added them")


def read_header(path: str | Path) -> dict[str, Any]:
    """Read what a checkpoint holds beside its weights, without these; it may also be the folder of a sharded one.

    So it takes no longer for larger networks. It checks that what it reads, and the sizes of all files, are as they
    were written; and that the weights fit the network, by their names and shapes.
    """
    path = Path(path)
    if not path.is_dir():
        return _file_header(path)
    if not (path / HEADER).is_file():
        raise InputError(f"{path} is a folder, and not that of a sharded checkpoint: name a file or folder below it")
    expected = _checksums(path)
    name = damaged(path, expected, since=sys.maxsize) or damaged(path, {HEADER: expected.get(HEADER, [0, 0])})
    if name:
        raise _damaged_shards(path, name)
    header = _load(path / HEADER, mapped=False)
    check_content(header, path, [key for key in REQUIRED_KEYS if key != "state_dict"])
    return header


def _file_header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}")
    _check_archive(path, path.stat().st_mtime_ns, "data.pkl")  # all but the content of the tensors
    checkpoint = _load(path, mapped=True)
    check_content(checkpoint, path, REQUIRED_KEYS)
    # copies of the few tensors, since what is mapped keeps a file that is replaced on the disk
    return deepcopy({key: value for key, value in checkpoint.items() if key not in WEIGHTS})


def check_shards(folder: Path, rank: int = 0, world_size: int = 1) -> None:
    """Refuse a sharded checkpoint whose files are not as they were written; of several ranks each reads some."""
    names = sorted(expected := _checksums(folder))
    name = damaged(folder, {name: expected[name] for name in names[rank::world_size]})
    if name:
        raise _damaged_shards(folder, name)


def _checksums(folder: Path) -> dict[str, list[int]]:
    try:
        return dict(json.loads((folder / CHECKSUMS).read_text(encoding="utf-8")).items())
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"checkpoint {folder} is incomplete: it has no {CHECKSUMS}; use another one") from error


def _damaged_shards(folder: Path, name: str) -> InputError:
    return InputError(f"checkpoint {folder} is incomplete or damaged ({name}): use another one")


def weights_alone(path: str | Path) -> InputError:
    """Say that training cannot go on from a checkpoint, as of ``consolidate``, ``average`` or ``import``."""
    return InputError(
        f"{path} has weights alone, without the state of an optimizer to go on from: start a run from them by "
        f"--model.pretrained {path}"
    )


def load_trained(path: str | Path, model_class: type[M]) -> Trained[M]:
    """Load the network of a checkpoint, of a class or a subclass of it, on the CPU in float32."""
    names = [name for name, entry in architectures().items() if issubclass(entry.network, model_class)]
    return restore(read_checkpoint(path), path, names)


def load_writer(checkpoint: dict[str, Any], path: str | Path, verb: str) -> Trained[Any]:
    """Load the network of a checkpoint for a verb that writes text with it."""
    return restore(checkpoint, path, [name for name, entry in architectures().items() if entry.writes == verb])


def restore(checkpoint: dict[str, Any], path: str | Path, names: list[str]) -> Trained[Any]:
    """Make the network of a checkpoint, of one of some architectures; ``path`` names it in errors."""
    held = checkpoint["architecture"]
    if held not in names:
        raise InputError(f"checkpoint {path} holds a {held}: this needs a {' or a '.join(names)}")
    model = architectures()[held].network(architectures()[held].config(**checkpoint["model_config"]))
    model.load_state_dict({key.removeprefix("model."): value for key, value in checkpoint["state_dict"].items()})
    return Trained(model.eval(), Tokenizer.from_str(checkpoint["tokenizer"]), checkpoint["special_tokens"])


def save_checkpoint(checkpoint: dict[str, Any], path: Path, aside: Path | None = None) -> None:
    """Write a checkpoint atomically, by way of ``aside`` as :func:`atomic_file` has it."""
    check_folder_of(path)
    check_tied(checkpoint, path)
    with atomic_file(path, aside) as file:
        torch.save(checkpoint, file)


def without_training(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Keep what a file that no run goes on from needs of a checkpoint."""
    kept = ("source_tokenizer", "label_names", "sentence_encoder", "untrained", "imported_from", "modules")
    of_lightning = ("pytorch-lightning_version", "epoch", "global_step")  # without which it evaluates no file
    return {key: checkpoint[key] for key in (*REQUIRED_KEYS, *kept, *of_lightning) if key in checkpoint}


def check_compatible(checkpoint: dict[str, Any], architecture: str, config: dict[str, Any], tokenizer: str) -> None:
    """Refuse to go on from a checkpoint with another network or tokenizer, naming the first thing that differs."""
    held = checkpoint.get("architecture")
    if held != architecture:
        raise InputError(f"the checkpoint holds a {held}: give one of a {architecture}")
    if checkpoint["tokenizer"] != tokenizer:
        raise InputError(
            "the checkpoint was trained with another tokenizer: name the tokenizer.json of its run, or the one that "
            "import wrote beside it, by --data.tokenizer"
        )
    # through its class, which knows what older checkpoints did not say
    was = _shape(asdict(architectures()[architecture].config(**checkpoint["model_config"])))
    now = _shape(config)
    for key, value in now.items():
        if was.get(key) != value:
            raise InputError(
                f"the checkpoint has {key} {was.get(key)}, this configuration {value}: set it to {was.get(key)}"
            )


def _shape(config: dict[str, Any]) -> dict[str, Any]:
    """Take what of a network's configuration its weights depend on."""
    free = ["init_std", "init", "zero_init", "attention", "window", "window_pattern", "dilation", "global_tokens"]
    free += [name for name in config if name.startswith("rope_") and name != "rope_fraction"]
    if config.get("positions", "learned") != "learned":
        free.append("max_seq_len")
    shape = {key: value for key, value in config.items() if "dropout" not in key and key not in free}
    return {**shape, "d_ff": config.get("d_ff") or 4 * config.get("d_model", 0)}
