"""Checkpoints of which each process reads its own part: shards by torch.distributed.checkpoint, and single files.

What is in shards is found by name, so that any strategy reads them: the weights are ``state_dict.NAME``, and what
optimizer ``i`` keeps of a parameter is ``optimizer_i.state.NAME.KEY``. All that is no tensor is in the header, the
settings of each parameter under ``optimizers``. A file numbers the parameters of an optimizer group by group; the order
within a group is that of the network, which gives them their names.
"""

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path, PosixPath
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader, load
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import Optimizer
from torch.serialization import _get_layout

from src.architectures import architectures
from src.checkpoint import WEIGHTS, read_checkpoint, read_header, tied_names, weights_alone
from src.distributed.materialize import copy_local
from src.errors import InputError
from src.optim import GroupOptions, parameter_groups

WEIGHT, STATE = "state_dict.", "optimizer_{}.state."
OPTIMIZERS = "optimizers"  # in the header: settings and plain values of each optimizer, by the names of parameters


def group_names(task: nn.Module, optimizer: Optimizer) -> list[list[str]]:
    """Name the parameters of each group of an optimizer as a task does."""
    names = {id(p): name for name, p in task.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def named_state(state: dict[str, Any], groups: list[list[str]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take an optimizer's state apart: what it keeps of each parameter, and the settings of its group, by its name.

    Args:
        state: ``Optimizer.state_dict()``.
        groups: the names of the parameters of each of its groups.
    """
    pairs = list(zip(state["param_groups"], groups, strict=True))
    found = [(i, name, group) for group, names in pairs for i, name in zip(group["params"], names, strict=True)]
    states = {name: state["state"][i] for i, name, _ in found if i in state["state"]}
    return states, {name: group for _, name, group in found}


def numbered_state(states: dict[str, Any], settings: dict[str, Any], groups: list[list[str]]) -> dict[str, Any]:
    """Put such parts together as the state of an optimizer over these groups, which may be fewer of them."""
    numbers = {name: i for i, name in enumerate(name for names in groups for name in names)}
    return {
        "state": {i: states[name] for name, i in numbers.items() if name in states},
        "param_groups": [{**settings[names[0]], "params": [numbers[name] for name in names]} for names in groups],
    }


def take_apart(checkpoint: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Divide what a process saves into the tensors, by their names among the shards, and the header.

    Args:
        checkpoint: Lightning's, whose ``optimizer_states`` are as :func:`named_state` gives them.
    """
    header = {key: value for key, value in checkpoint.items() if key not in WEIGHTS}
    tensors = {f"{WEIGHT}{name}": tensor for name, tensor in checkpoint["state_dict"].items()}
    header[OPTIMIZERS] = []
    for i, (states, settings) in enumerate(checkpoint.get("optimizer_states", [])):
        plain: dict[str, dict[str, Any]] = {}
        for name, state in states.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"{STATE.format(i)}{name}.{key}"] = value
                else:
                    plain.setdefault(name, {})[key] = value
        header[OPTIMIZERS].append({"settings": settings, "plain": plain})
    return tensors, header


# what the library's description of the shards is made of
CLASSES: tuple[type, ...] = (Metadata, MetadataIndex, StorageMeta, TensorStorageMetadata, BytesStorageMetadata)
CLASSES += (TensorProperties, ChunkStorageMetadata, _MEM_FORMAT_ENCODING, _StorageInfo, torch.Size, PosixPath)


class _Unpickler(pickle.Unpickler):
    """Reads the description of the shards, and runs no other code."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {(kind.__module__, kind.__qualname__): kind for kind in CLASSES}
        known["torch.serialization", "_get_layout"] = _get_layout
        known["builtins", "getattr"] = lambda _, member: _MEM_FORMAT_ENCODING[member]  # as an Enum's are pickled
        dtype = getattr(torch, name, None) if module == "torch" else None
        if (module, name) not in known and not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return known.get((module, name), dtype)


class _Reader(FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata: Metadata = _Unpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _stored(folder: Path) -> dict[str, TensorStorageMetadata]:
    """Describe the tensors among the shards by their names."""
    try:
        found = _Reader(folder).read_metadata().state_dict_metadata.items()
    except pickle.UnpicklingError as error:
        raise InputError(f"checkpoint {folder} holds more than tensors and plain values: it is not loaded") from error
    except Exception as error:  # whatever a damaged pickle does
        raise InputError(f"checkpoint {folder} is incomplete or damaged (.metadata): use another one") from error
    return {name: tensor for name, tensor in found if isinstance(tensor, TensorStorageMetadata)}


def _fill(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Read tensors, or this process's shards of them, in place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each process reads its own, without asking the others
            load(dict(tensors), storage_reader=_Reader(folder), no_dist=True)
    except (Exception, CheckpointException) as error:  # whatever the library meets in a damaged shard
        raise InputError(f"{folder} is incomplete or damaged ({type(error).__name__}): use another one") from error


def _room(parameter: Tensor | None, size: torch.Size, dtype: torch.dtype) -> Tensor:
    """Make room for what an optimizer keeps of a parameter: sharded as that is, where it has its shape."""
    if isinstance(parameter, DTensor):
        if size == parameter.shape:
            return torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
        if len(size):
            mesh = parameter.device_mesh
            whole = torch.zeros(size, dtype=dtype, device=parameter.device)
            return DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return torch.zeros(size, dtype=dtype)


def _states(folder: Path, i: int, parameters: dict[str, Any], plain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Read what optimizer ``i`` keeps of some parameters, by their names."""
    prefix, room = STATE.format(i), {}
    for key, stored in _stored(folder).items():
        name = key.removeprefix(prefix).rpartition(".")[0]
        if key.startswith(prefix) and name in parameters:
            room[key] = _room(parameters[name], stored.size, stored.properties.dtype)
    _fill(folder, room)
    states = {name: dict(values) for name, values in plain.items() if name in parameters}
    for key, tensor in room.items():
        name, _, what = key.removeprefix(prefix).rpartition(".")
        states.setdefault(name, {})[what] = tensor
    return states


def load_shards(folder: Path, task: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Any]:
    """Load what this process holds of the network and of its optimizers, in place; return the header."""
    header = read_header(folder)
    _fill(folder, {f"{WEIGHT}{name}": tensor for name, tensor in task.state_dict().items()})
    parameters = dict(task.named_parameters())
    for i, (optimizer, saved) in enumerate(zip(optimizers, header.pop(OPTIMIZERS), strict=False)):
        states = _states(folder, i, parameters, saved["plain"])
        optimizer.load_state_dict(numbered_state(states, saved["settings"], group_names(task, optimizer)))
    return header


def load_file(
    path: Path, task: Any, optimizers: Sequence[Optimizer], groups: list[list[str]] | None = None
) -> dict[str, Any]:
    """Load what this process holds of the network and of its optimizers out of a file, in place; return all else.

    Each process reads its own part of a tensor and no more, whoever has written the file.

    Args:
        path: of a checkpoint of one file.
        task: whose network may be sharded, or a part of one; its callbacks may have changed the network.
        optimizers: of the task, over what it holds.
        groups: the names of the whole network's parameters in each group of the optimizer; those of the task's if None.
    """
    checkpoint = read_checkpoint(path, mapped=True)
    task.restore_weights(checkpoint)
    weights, states = checkpoint.pop("state_dict"), checkpoint.pop("optimizer_states", None) or []
    for name, tensor in task.state_dict().items():
        if name not in weights or weights[name].shape != tensor.shape:
            raise InputError(f"{path} has no {name} of the shape {tuple(tensor.shape)}: it is of another network")
        copy_local(tensor, weights[name])
    if len(states) < len(optimizers):
        raise weights_alone(path)
    parameters = dict(task.named_parameters())
    for optimizer, saved in zip(optimizers, states, strict=False):
        held = group_names(task, optimizer)
        found, settings = named_state(saved, groups or held)
        mine = {name: _local_state(parameters[name], found[name]) for names in held for name in names if name in found}
        optimizer.load_state_dict(numbered_state(mine, settings, held))
    return checkpoint


def _local_state(parameter: Tensor, state: dict[str, Any]) -> dict[str, Any]:
    """Copy this process's part of what an optimizer keeps of a parameter."""
    local = dict(state)
    for key, value in state.items():
        if isinstance(value, Tensor):
            local[key] = _room(parameter, value.shape, value.dtype)
            copy_local(local[key], value)
    return local


def read_weights(folder: Path, header: dict[str, Any]) -> dict[str, Tensor]:
    """Read all weights, those that are tied once."""
    stored = {name: of for name, of in _stored(folder).items() if name.startswith(WEIGHT)}
    first = {f"{WEIGHT}{other}": f"{WEIGHT}{name}" for name, *others in tied_names(header) for other in others}
    room = {name: torch.empty(of.size, dtype=of.properties.dtype) for name, of in stored.items() if name not in first}
    _fill(folder, room)
    return {name.removeprefix(WEIGHT): room[first.get(name, name)] for name in stored}


def read_shards(folder: Path) -> dict[str, Any]:
    """Read all of a sharded checkpoint as one of a single file is: for a process that holds the whole network."""
    header = read_header(folder)
    if OPTIMIZERS not in header:
        raise InputError(f"{folder} is in the format of ZeRO, or of an older FSDP: go on with it under that strategy")
    entry = architectures()[header["architecture"]]
    with torch.device("meta"):
        network = entry.network(entry.config(**header["model_config"]))
    names = {id(p): f"model.{name}" for name, p in network.named_parameters()}
    options = GroupOptions(**header.get("groups", {}))
    groups = [[names[id(p)] for p in group["params"]] for group in parameter_groups(network, options)]
    states = []
    for i, saved in enumerate(header.pop(OPTIMIZERS)):
        trained = [kept for names in groups if (kept := [name for name in names if name in saved["settings"]])]
        found = _states(folder, i, dict.fromkeys(saved["settings"]), saved["plain"])
        states.append(numbered_state(found, saved["settings"], trained))
    return {**header, "state_dict": read_weights(folder, header), "optimizer_states": states}
