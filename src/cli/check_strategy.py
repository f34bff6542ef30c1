"""What cannot be trained by a strategy on these devices."""

import os

import lightning as L

import src.tasks
from src.callbacks import EMA, Guard
from src.errors import InputError


def check_strategy(trainer: L.Trainer, task: src.tasks.Task) -> None:
    """Refuse a strategy that cannot run this task on these devices, before any process is started."""
    n_cpus = os.cpu_count() or 1
    cluster = getattr(trainer.strategy, "cluster_environment", None)
    started_here = cluster is not None and not cluster.creates_processes_externally
    if started_here and trainer.strategy.root_device.type == "cpu" and trainer.num_devices > n_cpus:
        raise InputError(f"trainer.devices is {trainer.num_devices}: this machine has {n_cpus} CPUs")
    if hasattr(trainer.strategy, "check"):
        trainer.strategy.check(trainer, task)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EMA | Guard):
            callback.check(trainer)
