"""Saving checkpoints of a run."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from src.callbacks.ending import ends, save_last, validation_follows


class Checkpoints(ModelCheckpoint):
    """Lightning's, which saves after a validation what is due at the step that the validation is of.

    A run that goes on from a checkpoint of such a step is taken to have validated there: if the run was killed in that
    validation, its figures, and a best checkpoint that it may have found, would be missing.

    After the validation that a run ends with, ``last.ckpt`` is of the last step, whatever the interval of saving.
    """

    _waiting: tuple[Any, ...] | None = None  # what the end of the step is told

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if validation_follows(trainer):
            self._waiting = (outputs, None, batch_idx)
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            super().on_train_batch_end(trainer, pl_module, *waiting)
        super().on_validation_end(trainer, pl_module)
        if self.save_last and not self._should_skip_saving_checkpoint(trainer) and ends(trainer):
            save_last(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing: the run has ended with a checkpoint; one that is saved here would count its epoch as finished."""
