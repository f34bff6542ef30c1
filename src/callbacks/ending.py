"""A run ends with what its user wants to know: a validation of the last weights, and a checkpoint of them."""

import os
import subprocess
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment


class EndWithValidation(L.Callback):
    """Validate after the last optimizer step, wherever it falls between two validations, and so save a checkpoint.

    Within the training loop: a checkpoint that is saved after it would count the epoch as finished, and a longer run
    that resumes from it would skip the rest of the epoch's data.
    """

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step < trainer.max_steps or trainer.max_steps == -1:
            return
        if trainer.enable_validation:
            trainer.should_stop = True  # makes the loop validate now
        elif not trainer.fast_dev_run:  # type: ignore[attr-defined]
            save_last(trainer)


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
