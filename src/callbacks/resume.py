"""What a checkpoint needs beside Lightning's own for a resumed run to be the uninterrupted one, bit for bit."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import Strategy

from src.distributed import MeshStrategy
from src.tasks import Task


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of all generators that training may draw from, as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Go on with the draws where :func:`random_states` was called."""
    torch.set_rng_state(states["torch"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def seed_random_states(*entropy: int) -> None:
    """Seed the same generators by some numbers, independently for others."""
    for_torch, for_numpy, for_python = map(int, np.random.SeedSequence(entropy).generate_state(3))
    torch.manual_seed(for_torch)
    np.random.seed(for_numpy)
    random.seed(for_python)


def random_stream(strategy: Strategy) -> int:
    """The number of the stream that a process draws from: another for each, but one for a tensor-parallel group.

    What is not cut over that group is computed by each of its processes, which must drop the same of it.
    """
    if isinstance(strategy, MeshStrategy):
        return strategy.device_mesh["data_parallel"].get_local_rank()
    return int(getattr(strategy, "global_rank", 0))


class ExactResume(L.Callback):
    """Give each process its random stream; save and restore its state, and what was collected since the last log.

    They are restored just before the first batch: what Lightning does between loading a checkpoint and there, from the
    loaders on, draws random numbers that the uninterrupted run did not draw. Under another number of processes the
    random states are those of the seed, and the run is as good but not the same.
    """

    def __init__(self) -> None:
        self._held: dict[str, Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stream = random_stream(trainer.strategy)
        if stream:  # the first is that of one process; so far all have drawn alike, the initial weights among it
            seed_random_states(torch.initial_seed(), stream)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(pl_module, Task)
        checkpoint["data_fingerprint"] = pl_module.data.fingerprint()
        if trainer.state.fn != "fit":
            return
        collected = {name: torch.stack(values).cpu() for name, values in pl_module.collected.items()}
        mine = {
            "random": random_states(trainer.strategy.root_device),
            "collected": collected,
            "steps_since_log": pl_module.steps_since_log,
        }
        parts: list[Any] = [mine]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            dist.all_gather_object(parts, mine)
        checkpoint["processes"] = parts
        for logger in trainer.loggers:
            logger.save()  # so that a run that goes on from here has all figures up to here, whatever happens next

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        parts = checkpoint.get("processes", [])
        if trainer.state.fn == "fit" and len(parts) == trainer.world_size:
            self._held = parts[trainer.global_rank]

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self._held is None:
            return
        assert isinstance(pl_module, Task)
        device = trainer.strategy.root_device
        pl_module.steps_since_log = self._held["steps_since_log"]
        for name, values in self._held["collected"].items():
            pl_module.collected[name] = list(values.to(device).unbind())
        restore_random_states(self._held["random"], device)
        self._held = None
