"""Checkpoints that are complete or not there at all: a file by one process, or a folder by all of them."""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.plugins import AsyncCheckpointIO, CheckpointIO
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter, save
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map_only

from src.atomic import checksums, link, remove, replace_folder, write_text
from src.checkpoint import CHECKSUMS, HEADER, check_bytes, check_shards, read_checkpoint, save_checkpoint
from src.distributed.collectives import gather_objects
from src.distributed.shards import OPTIMIZERS, read_shards, take_apart
from src.errors import InputError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its name, flush it, and rename it; read nothing but tensors and plain values.

    What was there before stays until then: after a crash, a kill or a full disk. Lightning's own writing is not atomic
    where the folder of temporary files is on another file system.

    Args:
        asynchronous: write a copy of what is saved while training goes on, one checkpoint at a time and all in order.
    """

    def __init__(self, asynchronous: bool = False) -> None:
        super().__init__()
        self.asynchronous = asynchronous
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._newest: Future[None] | None = None  # of what is written, or has been

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.run(partial(_write, self.snapshot(checkpoint), Path(path)))

    def snapshot(self, state: dict[str, Any]) -> dict[str, Any]:
        """Copy what is to be saved to the CPU's memory, if training goes on meanwhile; tied tensors stay tied."""
        if not self.asynchronous:
            return state
        self.wait()  # so that there is one copy at most
        copies: dict[Any, Tensor] = {}

        def copy(tensor: Tensor) -> Tensor:
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            key = (local.data_ptr(), local.dtype, local.shape, local.stride()) if local.numel() else id(tensor)
            if key not in copies:
                copies[key] = tensor.detach().to("cpu", copy=True)
            return copies[key]

        copied: dict[str, Any] = tree_map_only(Tensor, copy, state)
        return copied

    def run(self, job: Callable[[], None]) -> None:
        """Run what writes, links or removes checkpoints, behind all that came before; nothing after a failure."""
        if not self.asynchronous:
            job()
            return
        self._newest = self._thread.submit(_after, self._newest, job)

    def wait(self) -> None:
        """Wait until all that was saved is on the disk; raise what went wrong."""
        newest, self._newest = self._newest, None
        if newest is not None:
            newest.result()

    def link_checkpoint(self, path: Path, name: Path) -> None:
        """Give a checkpoint a second name, without writing it again."""
        self.run(partial(link, path, name))

    def remove_checkpoint(self, path: Any) -> None:
        self.run(partial(remove, Path(path)))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a file or a folder of shards, whole; of several processes each maps a file that the first checks."""
        path = checked(path)
        if path.is_dir():
            return read_shards(path)
        return read_checkpoint(path, mapped=dist.is_initialized() and dist.get_world_size() > 1)

    def teardown(self) -> None:
        self.wait()


def with_checkpoint_io(plugins: list[Any]) -> list[Any]:
    """Add to a trainer's plugins what writes checkpoints: asynchronously, where Lightning's for that is among them."""
    others = [plugin for plugin in plugins if not isinstance(plugin, AsyncCheckpointIO)]
    if any(isinstance(plugin, CheckpointIO) for plugin in others):
        return plugins
    return [*others, AtomicCheckpointIO(asynchronous=len(others) < len(plugins))]


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if (path / CHECKSUMS).is_file():  # a sharded one of that name, of a run that goes on under another strategy
        path.rename(path.with_name(f"{path.name}.old"))
    save_checkpoint(checkpoint, path, path.with_name(f"{path.name}.part"))
    remove(path.with_name(f"{path.name}.old"))


def save_shards(checkpoint: dict[str, Any], path: Path, checkpoint_io: CheckpointIO, group: Any) -> None:
    """Have each process write what it holds into a folder, and the first one the header; every one must call this.

    Args:
        checkpoint: what this process holds, for :func:`take_apart`.
        path: the folder.
        checkpoint_io: by which it is written now, or while training goes on.
        group: of all processes over gloo, for the thread that writes; training's own is in use meanwhile.
    """
    tensors, header = take_apart(checkpoint)
    for others in gather_objects(header[OPTIMIZERS], group):  # stages have each their own parameters
        for mine, theirs in zip(header[OPTIMIZERS], others, strict=True):
            for kind in mine:
                mine[kind] = {**theirs[kind], **mine[kind]}
    if not isinstance(checkpoint_io, AtomicCheckpointIO):
        checkpoint_io = AtomicCheckpointIO()
    tensors, header = checkpoint_io.snapshot({"tensors": tensors, "header": header}).values()
    checkpoint_io.run(partial(_write_shards, tensors, header, path, group))


def _write_shards(tensors: dict[str, Tensor], header: dict[str, Any], path: Path, group: Any) -> None:
    try:
        with atomic_folder(path, partial(dist.barrier, group=group), group) as aside:
            save(tensors, storage_writer=FileSystemWriter(aside), process_group=group)
            if dist.get_rank() == 0:
                torch.save(header, aside / HEADER)
    except CheckpointException as error:
        fault = next(iter(error.failures.values()))[0]
        raise InputError(f"{path} cannot be written: {str(fault).splitlines()[0]}") from error


def _after(before: Future[None] | None, job: Callable[[], None]) -> None:
    if before is not None:
        before.result()
    job()


def checked(path: Any) -> Path:
    """Find the checkpoint that the first process has chosen, after a check that its bytes are as they were written.

    Every process must call this. A file is read by the first one; the reading of shards is shared among all.
    """
    path, fault = Path(gather_objects(str(path))[0]), ""
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    try:
        if path.is_dir() and world_size > 1:
            check_shards(path, rank, world_size)
        elif rank == 0 and path.exists():  # else what reads it complains
            check_bytes(path)
    except InputError as error:
        fault = str(error)
    for found in filter(None, gather_objects(fault)):
        raise InputError(found)
    return path


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
def atomic_folder(path: Path, barrier: Callable[[], Any], group: Any = None) -> Iterator[Path]:
    """A folder that every process writes its shard into, under its name only when all of it is on the disk.

    Every process must enter it. With it go the checksums of its files, for which the processes share the reading.

    Args:
        path: the name.
        barrier: waits for all processes.
        group: by which they tell each other of their files; the default one if None.
    """
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    aside = path.with_name(f"{path.name}.part")
    if rank == 0:
        remove(aside)
        aside.mkdir(parents=True)
    barrier()
    yield aside
    barrier()
    parts = gather_objects(checksums(aside, rank, world_size), group)
    if rank == 0:
        write_text(aside / CHECKSUMS, json.dumps({name: sums for part in parts for name, sums in part.items()}))
        replace_folder(aside, path)
    barrier()
