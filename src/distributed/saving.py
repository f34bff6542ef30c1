"""Checkpoints that are complete or not there at all: a file by one process, or a folder by all of them."""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from src.atomic import checksums, remove, replace_folder, write_text
from src.checkpoint import CHECKSUMS, read_checkpoint, save_checkpoint
from src.distributed.collectives import gather_objects
from src.errors import InputError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its name, flush it, and rename it; read nothing but tensors and plain values.

    What was there before stays until then: after a crash, a kill or a full disk. Lightning's own writing is not atomic
    where the folder of temporary files is on another file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if (path / CHECKSUMS).is_file():  # a sharded one of that name, of a run that goes on under another strategy
            path.rename(path.with_name(f"{path.name}.old"))
        save_checkpoint(checkpoint, path)
        remove(path.with_name(f"{path.name}.old"))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(path)


@contextmanager
def plain_deepspeed() -> Iterator[None]:
    """Let DeepSpeed, which unpickles what its folders hold, read tensors, plain values and four classes of its own."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    name, own = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]
    before = os.environ.get(name)
    os.environ[name] = "1"  # it asks for everything by name, and only this rules over that
    try:
        with torch.serialization.safe_globals(own):
            yield
    except pickle.UnpicklingError as error:
        raise InputError("the checkpoint holds more than tensors and plain values: it is not loaded") from error
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def atomic_folder(path: Path, barrier: Callable[[], Any]) -> Iterator[Path]:
    """A folder that every process writes its shard into, under its name only when all of it is on the disk.

    Every process must enter it. With it go the checksums of its files, for which the processes share the reading.

    Args:
        path: the name.
        barrier: waits for all processes.
    """
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    aside = path.with_name(f"{path.name}.part")
    if rank == 0:
        remove(aside)
        aside.mkdir(parents=True)
    barrier()
    yield aside
    barrier()
    parts = gather_objects(checksums(aside, rank, world_size))
    if rank == 0:
        write_text(aside / CHECKSUMS, json.dumps({name: sums for part in parts for name, sums in part.items()}))
        replace_folder(aside, path)
    barrier()


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
