"""A run ends with what its user wants to know: a validation of the last weights, and a checkpoint of them."""

import os
import subprocess
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment


class EndWithValidation(L.Callback):
    """Validate the weights of the last optimizer step, whatever ends the run there, and so save a checkpoint of them.

    Within the training loop: a checkpoint that is saved after it would count the epoch as finished, and a longer run
    that resumes from it would skip the rest of the epoch's data.

    A run that is asked to stop between two optimizer steps, by a time limit or after a validation, first finishes the
    step that it is in: else the gradient of its first batches would be lost, and a resumed run would not compute it.
    """

    _asked = False  # to stop, within an optimizer step

    def _finish_step(self, trainer: L.Trainer) -> None:
        if trainer.fit_loop._should_accumulate():
            self._asked |= trainer.should_stop
            trainer.should_stop = False

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.should_stop |= self._asked
        self._finish_step(trainer)
        if not ends(trainer):
            return
        loop = trainer.fit_loop
        loop.min_epochs = loop.epoch_loop.min_steps = 0  # of a run that has reached them, at the end of this batch
        trainer.should_stop = True  # makes the loop validate now
        trainer.check_val_every_n_epoch = None  # in whichever epoch this is
        if not trainer.enable_validation and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            save_last(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._finish_step(trainer)


def ends(trainer: L.Trainer) -> bool:
    """Whether the run ends with the training batch at hand: by its steps, its epochs, or as it was asked to."""
    loop = trainer.fit_loop
    if loop._should_accumulate():
        return False
    steps, epochs = trainer.global_step, loop.epoch_progress.current.processed  # type: ignore[attr-defined]
    epochs += loop.epoch_loop._num_ready_batches_reached()
    asked = trainer.should_stop and steps >= (loop.min_steps or 0) and epochs >= (loop.min_epochs or 0)
    return asked or _reached(steps, trainer.max_steps) or _reached(epochs, trainer.max_epochs)


def _reached(done: int, limit: int | None) -> bool:
    return limit is not None and -1 != limit <= done


def validation_follows(trainer: L.Trainer) -> bool:
    """Whether a validation begins after the training batch at hand."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def save_last(trainer: L.Trainer) -> Path:
    """Save ``last.ckpt`` now, and return its path; every process must call it."""
    run = Path(trainer.strategy.broadcast(trainer.default_root_dir))  # the first rank's: see `run_folder`
    path = run / "checkpoints" / "last.ckpt"
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.save_last:
            callback.last_model_path = str(path)  # which it writes over, and does not number another one beside it
    trainer.save_checkpoint(path)
    return path


def requeue(trainer: L.Trainer) -> str:
    """Put the job back into SLURM's queue, if it is one of those; what became of that, for people."""
    cluster = trainer._accelerator_connector.cluster_environment
    if not isinstance(cluster, SLURMEnvironment) or not cluster.auto_requeue or not trainer.is_global_zero:
        return ""
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ["SLURM_JOB_ID"]
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
    status = subprocess.run(["scontrol", "requeue", job], check=False).returncode
    return f"; scontrol requeue {job} failed: {status}" if status else f"; job {job} was put back into the queue"
