"""Callbacks that do to a run what the world does, at a given place, once."""

import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from torch import nn


class Once(L.Callback):
    """Does something the first time that its place is reached; a file remembers that it was.

    Args:
        place: ``step`` or ``validation``.
        step: optimizer steps done when it happens.
        marker: the file.
        rank: the process that it happens to.
    """

    def __init__(self, place: str, step: int, marker: str, rank: int = 0) -> None:
        self.place, self.step, self.marker, self.rank = place, step, Path(marker), rank

    def _is_here(self, trainer: L.Trainer, place: str) -> bool:
        here = (
            trainer.global_rank == self.rank
            and self.place == place
            and trainer.global_step == self.step
            and not self.marker.exists()
        )
        if here:
            self.marker.touch()
        return here

    def do(self) -> None:
        raise NotImplementedError

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if self._is_here(trainer, "step"):
            self.do()

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if self._is_here(trainer, "validation"):
            self.do()


class Signal(Once):
    """Sends this process a signal."""

    def __init__(self, place: str, step: int, marker: str, name: str = "SIGTERM", rank: int = 0) -> None:
        super().__init__(place, step, marker, rank)
        self.name = name

    def do(self) -> None:
        os.kill(os.getpid(), getattr(signal, self.name))


class Interrupt(L.Callback):
    """Sends SIGINT to all processes of a job, as a terminal does: each to itself, at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and trainer.fit_loop.batch_idx % 2:
            os.kill(os.getpid(), signal.SIGINT)


class Poison(L.Callback):
    """Makes something infinite or not a number at some steps.

    Args:
        where: ``weight`` of the first norm, ``shard`` of the first projection, as much of it as the process has,
            ``output`` of the first block, ``gradient`` of the last norm, or ``loss``; ``jump`` makes the loss large and
            finite, and ``rate`` the learning rate.
        steps: optimizer steps done before it happens.
        rank: the process that it happens on; on all if None.
    """

    def __init__(self, where: str, steps: list[int], rank: int | None = None) -> None:
        self.where, self.steps, self.rank = where, steps, rank
        self._active = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        norms = {name: module for name, module in pl_module.model.named_modules() if isinstance(module, nn.LayerNorm)}
        first, *_, last = norms.values()
        if self.where == "output":
            first.register_forward_hook(lambda m, i, output: output + float("inf") if self._active else output)
        if self.where == "gradient":
            last.weight.register_hook(lambda g: torch.full_like(g, float("nan")) if self._active else g)
        if self.where in ("loss", "jump"):
            losses, more = pl_module.losses, float("inf") if self.where == "loss" else 1e3
            pl_module.losses = lambda *a: {
                name: part + (more if self._active else 0.0) for name, part in losses(*a).items()
            }
        self._first = first

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._active = trainer.global_step in self.steps and self.rank in (None, trainer.global_rank)
        if self._active and self.where == "weight":
            self._first.weight.data[0] = float("nan")
        if self._active and self.where == "shard":
            projection = next(module for module in pl_module.model.modules() if isinstance(module, nn.Linear))
            local = getattr(projection.weight, "to_local", lambda: projection.weight)()
            local.data[0] = float("nan")
        if self._active and self.where == "rate":
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = 1.0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._active = False


class Phase(L.Callback):
    """Keeps a file that says what the run is at."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def _write(self, trainer: L.Trainer, phase: str) -> None:
        if trainer.is_global_zero:
            self.path.write_text(phase)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, "starting")

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._write(trainer, "training")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, "validation")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._write(trainer, "checkpoint writing")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, "ending")


class SlowSave(L.Callback):
    """Takes a minute for each checkpoint."""

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        print("saving slowly", flush=True)
        time.sleep(60)


class Stop(L.Callback):
    """Asks the run to stop after a number of batches, which may be within an optimizer step."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        trainer.should_stop |= trainer.fit_loop.total_batch_idx + 1 == self.batch


class Seen(L.Callback):
    """Keeps the batches that a run in this process trains on."""

    batches: ClassVar[list[dict[str, torch.Tensor]]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.batches.clear()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, *_: Any) -> None:
        self.batches.append(batch)
