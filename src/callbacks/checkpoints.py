"""What a run saves: its checkpoints, all that a resumed run needs to be the uninterrupted one, and its predictions."""

import random
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, ModelCheckpoint

from src.data import TextDataModule
from src.distributed import AtomicCheckpointIO, MeshStrategy, ZeroStrategy, gather_objects
from src.errors import InputError
from src.files import counted
from src.predictions import write_table
from src.tasks import Task

LAST = "last.ckpt"


def ends(trainer: L.Trainer) -> bool:
    """Whether the run ends with the training batch at hand: by its steps, its epochs, or as it was asked to."""
    loop = trainer.fit_loop
    if loop._should_accumulate():
        return False
    steps, epochs = trainer.global_step, loop.epoch_progress.current.processed  # type: ignore[attr-defined]
    epochs += loop.epoch_loop._num_ready_batches_reached()
    asked = trainer.should_stop and steps >= (loop.min_steps or 0) and epochs >= (loop.min_epochs or 0)
    limits = ((steps, trainer.max_steps), (epochs, trainer.max_epochs))
    return asked or any(limit is not None and -1 != limit <= done for done, limit in limits)


def validation_follows(trainer: L.Trainer) -> bool:
    """Whether a validation begins after the training batch at hand."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def save_last(trainer: L.Trainer) -> Path:
    """Save ``last.ckpt`` now, and return its path; every process must call it."""
    run = Path(trainer.strategy.broadcast(trainer.default_root_dir))  # the first rank's: see `run_folder`
    path = run / "checkpoints" / LAST
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.save_last:
            callback.last_model_path = str(path)  # which it overwrites, instead of numbering another beside it
    trainer.save_checkpoint(path)
    wait_until_saved(trainer)
    return path


def wait_until_saved(trainer: L.Trainer) -> None:
    """Wait for what is written while training goes on; raise what went wrong with it."""
    io = trainer.strategy.checkpoint_io
    if isinstance(io, AtomicCheckpointIO) and io.asynchronous:
        io.wait()
        trainer.strategy.barrier()  # else a process would look for what another one is still to rename


def last_checkpoint(trainer: L.Trainer) -> Path | None:
    """Find the newest checkpoint of this run, or the one that it was resumed from."""
    wait_until_saved(trainer)
    names = [
        getattr(c, name, "") for c in trainer.checkpoint_callbacks for name in ("last_model_path", "best_model_path")
    ]
    paths = [Path(name) for name in [*names, trainer.ckpt_path or ""] if name and Path(name).exists()]
    return max(paths, key=lambda path: path.stat().st_mtime, default=None)


class Checkpoints(ModelCheckpoint):
    """Lightning's, which saves after a validation what is due at the step of the validation.

    A run that is resumed from a checkpoint of such a step is taken to have validated there: if the run was killed in
    that validation, its metrics, and a best checkpoint that it may have found, would be missing.

    After the validation that a run ends with, ``last.ckpt`` is of the last step, whatever the interval of saving. Where
    the best checkpoint is the last one too, it is written once and has two names (a hard link).

    Args:
        async_save: write a copy of what is saved while training goes on, which takes memory for one. A run that is
            killed meanwhile has the checkpoint before.
        kwargs: of Lightning's ModelCheckpoint.
    """

    _waiting: tuple[Any, ...] | None = None  # arguments of the end of the step
    _saved: tuple[str, dict[str, Any]] | None = None  # the newest checkpoint, and at which moment of the run

    def __init__(self, async_save: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.async_save = async_save

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not self.async_save:
            return
        if isinstance(trainer.strategy, ZeroStrategy) or not isinstance(
            io := trainer.strategy.checkpoint_io, AtomicCheckpointIO
        ):
            raise InputError(
                "checkpoint.async_save: ZeRO, or a CheckpointIO of your own, saves by itself: leave it out"
            )
        io.asynchronous = True

    def state_dict(self) -> dict[str, Any]:
        """Say where the last checkpoint is in the best one too, which may be the same file."""
        state = super().state_dict()
        if self.save_last and self.dirpath:
            state["last_model_path"] = self.last_model_path or str(Path(self.dirpath) / LAST)
        return state

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        moment, io = trainer.fit_loop.state_dict(), trainer.strategy.checkpoint_io
        saved, when = self._saved or ("", {})
        if when != moment or saved == filepath or not isinstance(io, AtomicCheckpointIO):
            super()._save_checkpoint(trainer, filepath)
            self._saved = filepath, moment
            return
        if trainer.is_global_zero:
            io.link_checkpoint(Path(saved), Path(filepath))
        trainer.strategy.barrier()
        self._last_checkpoint_saved = filepath

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.fit_loop._should_accumulate():  # a run that goes on from here would lose the gradients so far
            return
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
        """Save nothing: the run has its last checkpoint; one that is saved here would count its epoch as finished."""
        wait_until_saved(trainer)


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


def random_states(device: torch.device) -> dict[str, Any]:
    """Collect the states of all generators that training may draw from, as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Set all generators back to :func:`random_states`."""
    torch.set_rng_state(states["torch"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def seed_random_states(*entropy: int) -> None:
    """Seed all generators, independently for different numbers."""
    for_torch, for_numpy, for_python = map(int, np.random.SeedSequence(entropy).generate_state(3))
    torch.manual_seed(for_torch)
    np.random.seed(for_numpy)
    random.seed(for_python)


class ExactResume(L.Callback):
    """Give each process its random stream; save and restore its state, and what was collected since the last log.

    They are restored just before the first batch: what Lightning does between loading a checkpoint and that, from the
    loaders on, draws random numbers that the uninterrupted run did not draw. Under another number of processes the
    random states are those of the seed, and the run is as good but not the same.
    """

    def __init__(self) -> None:
        self._held: dict[str, Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stream, strategy = trainer.global_rank, trainer.strategy
        if isinstance(strategy, MeshStrategy):
            # one for a tensor-parallel group: what is not sharded over it is computed by each of its processes, which
            # must drop the same elements
            stream //= strategy.device_mesh["tensor_parallel"].size()
        if stream:  # the first is that of one process; so far all have drawn alike, the initial weights among it
            seed_random_states(torch.initial_seed(), stream)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(pl_module, Task)
        checkpoint["data_fingerprint"] = pl_module.data.fingerprint()
        if trainer.state.fn != "fit":
            return
        mine = {
            "random": random_states(trainer.strategy.root_device),
            "collected": {name: torch.stack(values).cpu() for name, values in pl_module.collected.items()},
            "steps_since_log": pl_module.steps_since_log,
        }
        checkpoint["processes"] = gather_objects(mine)
        # so that a run that is resumed from here has all metrics up to here, whatever happens next
        trainer._logger_connector.update_train_step_metrics()
        for logger in trainer.loggers:
            logger.save()

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        assert isinstance(pl_module, Task)
        if "loops" in checkpoint:
            _count_batches_anew(checkpoint["loops"]["fit_loop"], pl_module.data)
        of_ranks = checkpoint.get("processes", [])
        if len(of_ranks) == trainer.world_size:
            self._held = of_ranks[trainer.global_rank]

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


def _count_batches_anew(loop: dict[str, Any], data: TextDataModule) -> None:
    """Let Lightning count the batches of the epoch as this run divides it, among its ranks and by its batch size."""
    for state in loop["state_dict"].get("combined_loader", []):
        loader = data.train_dataloader()
        loader.load_state_dict(state)
        progress = loop["epoch_loop.batch_progress"]
        more = loader.done - (state["position"] - state.get("first", 0))
        for counts in (progress["total"], progress["current"]):
            for name in counts:
                counts[name] += more


class Predictions(BasePredictionWriter):
    """Write predictions to the run's folder: ``predictions.csv``, where the task makes a table of them.

    Else what ``predict_step`` returned for each batch, in order, to ``predictions_RANK.pt``.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, predictions: Any, batch_indices: Any
    ) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert isinstance(pl_module, Task)
        run = Path(trainer.strategy.broadcast(trainer.default_root_dir))
        table = pl_module.prediction_table(predictions)
        if table is not None:
            if trainer.is_global_zero:
                write_table(run / "predictions.csv", table)
                print(f"predictions of {counted(len(table), 'rows')}: {run / 'predictions.csv'}")
            return
        path = run / f"predictions_{trainer.global_rank}.pt"
        torch.save(predictions, path)
        print(f"predictions of {counted(len(predictions), 'batches')}: {path}")
