"""What cannot be trained by a strategy on these devices."""

import os
from typing import Any

import lightning as L

import src.tasks
from src.callbacks import EMA, Guard
from src.errors import InputError
from src.tasks.trained import NetworkCallback


def check_strategy(trainer: L.Trainer, task: src.tasks.Task, resumed: dict[str, Any] | None = None) -> None:
    """Refuse a strategy that cannot run this task on these devices, before any process is started.

    Args:
        trainer: with its callbacks, which may change the network.
        task: that it is to run.
        resumed: what the checkpoint that training goes on from holds beside weights.
    """
    task.trainer = trainer
    n_cpus = os.cpu_count() or 1
    cluster = getattr(trainer.strategy, "cluster_environment", None)
    started_here = cluster is not None and not cluster.creates_processes_externally
    if started_here and trainer.strategy.root_device.type == "cpu" and trainer.num_devices > n_cpus:
        raise InputError(f"trainer.devices is {trainer.num_devices}: this machine has {n_cpus} CPUs")
    if hasattr(trainer.strategy, "check"):
        trainer.strategy.check(trainer, task)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EMA | Guard | NetworkCallback):
            callback.check(trainer)
    task.meta_model()  # refuses patterns that match nothing
    if resumed is not None:
        task.check_trained(resumed)
