"""Callbacks for tests: a process that dies, and a count of the bytes that a process holds."""

import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor


class Kill(L.Callback):
    """SIGKILL one process before a step."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def held(tensors: Iterable[Tensor | None]) -> int:
    """The bytes of the local parts of tensors."""
    total = 0
    for tensor in tensors:
        if tensor is not None:
            local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            total += local.numel() * local.element_size()
    return total


class Bytes(L.Callback):
    """Write the bytes of parameters, gradients and optimizer state of each process to ``FOLDER/RANK.json``."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.found: dict[str, int] = {}

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        zero = trainer.optimizers[0]
        # what DeepSpeed keeps of the gradients, for the parameters whose state is on this rank
        kept = getattr(zero, "averaged_gradients", None) or {}
        kept = [t for group in (kept.values() if isinstance(kept, dict) else kept) for t in (group or [])]
        self.found["gradients"] = held(p.grad for p in pl_module.parameters()) + held(kept)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        zero = trainer.optimizers[0]
        inner = getattr(zero, "optimizer", zero)
        states = [t for state in inner.state.values() for t in state.values() if isinstance(t, Tensor) and t.dim()]
        # DeepSpeed's fp32 copy of the parameters whose state is on this rank
        master = getattr(zero, "single_partition_of_fp32_groups", None) or getattr(
            zero, "fp32_partitioned_groups_flat", []
        )
        self.found["parameters"] = held(getattr(p, "ds_tensor", p) for p in pl_module.parameters())
        self.found["optimizer"] = held(states) + held(master)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(self.found))
        torch.distributed.barrier()


class Batches(L.Callback):
    """Keep the ids of the batches that each process trains on in ``FOLDER/RANK.json``."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.ids: list[int] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, *_: Any) -> None:
        self.ids += batch["input_ids"].flatten().tolist()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(self.ids))
