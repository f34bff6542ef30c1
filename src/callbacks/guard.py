"""Watch for divergence and for signals, once an optimizer step, by all processes together."""

import math
import os
import signal
import subprocess
import threading
from collections import deque
from statistics import fmean, pstdev
from types import FrameType
from typing import Any, Literal

import lightning as L
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch import Tensor

from src.callbacks.blame import Batches, cause_of_spike, first_fault, location
from src.callbacks.checkpoints import ends, last_checkpoint, save_last, validation_follows
from src.callbacks.ema import EMA
from src.distributed import ZeroStrategy, mean_over_ranks
from src.errors import Diverged, InputError, Interrupted, Preempted
from src.tasks import Task
from src.tasks.optimization import NormCallback

WINDOW, ENOUGH = 100, 20  # steps that a spike is compared with, and the fewest that suffice
BEFORE = 4  # steps whose rows are kept, to find the cause of a spike
EVERY = 10  # batches of a validation between two checks for a signal, where several processes must agree


class Guard(NormCallback):
    """Catch a loss or gradient that is not finite before the optimizer uses it, and signals that ask the run to end.

    Before each optimizer step the loss is averaged over the processes, with whether one of them was asked to end; so
    all of them do the same thing at the same step. That is one small reduction a step, where there are several
    processes, and one wait of the CPU for the GPU, between the backward pass and the optimizer's step.

    A signal (SIGTERM or SIGUSR1) ends the run with a checkpoint after the step, and status 75. Under SLURM, SIGUSR1
    puts the job back into the queue too. Ctrl-C (SIGINT) does as SIGTERM, with status 130; a second one ends at once.

    Args:
        on_fault: what to do about a loss or gradient that is not finite. ``stop`` ends the run with status 3 and leaves
            its checkpoints as they are; ``skip`` leaves the step out; ``rollback`` takes weights and optimizer from the
            run's last checkpoint, lowers the learning rate, and goes on with the next batches, not with the same ones
            (Chowdhery et al. 2022, section 5.1).
        max_faults: how often to skip or roll back, in a whole run, before it stops after all.
        rollback_factor: what a rollback multiplies the learning rate by.
        spike: a loss that is more standard deviations than this above the mean of the last 100 steps is reported, with
            whether it is due to the rows of the step or to the weights.
    """

    def __init__(
        self,
        on_fault: Literal["stop", "skip", "rollback"] = "stop",
        max_faults: int = 10,
        rollback_factor: float = 0.5,
        spike: float = 6.0,
    ) -> None:
        if max_faults < 1 or not 0 < rollback_factor <= 1 or spike <= 0:
            raise InputError("guard: max_faults must be at least 1, rollback_factor above 0 and up to 1, spike above 0")
        self.on_fault, self.max_faults = on_fault, max_faults
        self.rollback_factor, self.spike = rollback_factor, spike
        self._lr_scale = 1.0  # after the rollbacks
        self.faults = 0  # since the start of the run, those before a resume among them
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._usual: deque[Batches] = deque(maxlen=BEFORE)  # the batches of steps that were no spikes
        self._signal: int | None = None  # what this process received
        self._ending = False  # what all of them agreed on
        self._in_validation = False  # whether the checkpoint of a preemption is to begin with a validation

    def check(self, trainer: L.Trainer) -> None:
        """Refuse what a strategy cannot do."""
        if self.on_fault != "stop" and isinstance(trainer.strategy, ZeroStrategy):
            raise InputError(f"guard.on_fault {self.on_fault}: ZeRO steps by itself and can only stop; set it to stop")

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        return {"faults": self.faults, "lr_scale": self._lr_scale, "losses": list(self._losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.faults = state_dict["faults"]
        self._lr_scale = state_dict["lr_scale"] if "lr_scale" in state_dict else state_dict["rate_factor"]  # once
        self._losses.extend(state_dict["losses"])

    # ---- setting up

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        pl_module.configure_rates(self._lr_scale)
        self._signal, self._ending = None, False
        # instead of Lightning's handlers, which end with status 0 and no checkpoint, or save in the middle of a step;
        # its teardown restores the handlers from before the run
        if threading.current_thread() is threading.main_thread():  # other threads get no signals
            cluster = trainer._accelerator_connector.cluster_environment
            for_requeue = cluster.requeue_signal if isinstance(cluster, SLURMEnvironment) else None
            for number in (signal.SIGTERM, for_requeue or signal.SIGUSR1):
                signal.signal(number, self._receive)
            # it tells all processes at each batch whether the first has a signal, and waits for the device to do so
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a run of a sweep, or in the background
                signal.signal(signal.SIGINT, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        if number == signal.SIGINT:
            # the next one is the system's to deal with: Python's handlers wait while a process waits for another
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            _announce_end()

    # ---- each step

    def on_gradient_norm(self, trainer: L.Trainer, task: Task, norm: Tensor) -> None:
        loss = torch.stack([loss for _, _, loss in task.batches]).mean().float()
        asked = loss.new_full((), float(self._signal is not None))  # a number that is copied would wait for the GPU
        values = mean_over_ranks(torch.stack([loss, asked]))
        loss_now, asked_now, norm_now = torch.cat([values, norm.float().to(values.device).view(1)]).tolist()
        self._ending = asked_now > 0
        # a gradient scaler handles overflows itself, and they are not faults: by them it finds its scale
        scaled = str(trainer.precision).startswith("16")
        if not (math.isfinite(loss_now) and (scaled or math.isfinite(norm_now))):
            self._fault(trainer, task, loss_now, norm_now)
        else:
            self._look_for_spike(trainer, task, loss_now)

    def _look_for_spike(self, trainer: L.Trainer, task: Task, loss: float) -> None:
        losses, usual = self._losses, True
        if len(losses) >= ENOUGH:
            mean, deviation = fmean(losses), pstdev(losses)
            margin = self.spike * deviation
            usual = loss <= mean + margin
            if not usual:
                above = f"the mean of the last {len(losses)} steps is {mean:.4f} ± {deviation:.4f}"
                cause = cause_of_spike(task, self._usual, mean + margin, margin)
                self._warn(f"loss spike at step {trainer.global_step + 1}: {loss:.4f}, {above}; {cause}")
        if usual:
            self._usual.append(list(task.batches))
        losses.append(loss)

    @rank_zero_only
    def _warn(self, message: str) -> None:
        print(f"warning: {message}", flush=True)

    def _fault(self, trainer: L.Trainer, task: Task, loss: float, norm: float) -> None:
        what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
        found = first_fault(task)
        where = found.location if found else location(task)
        source = found.what if found else "no module by itself: it must be in the optimizer state or in the reduction"
        message = f"{what} at step {trainer.global_step + 1}, {where}; {source}"
        self.faults += 1
        if self.on_fault == "stop":
            raise Diverged(
                f"{message}; the weights are as before it: lower the learning rate, or set guard.on_fault to skip"
            )
        if self.faults > self.max_faults:
            raise Diverged(f"{message}; it is fault {self.faults}, and guard.max_faults is {self.max_faults}")
        if self.on_fault == "rollback":
            message += f"; {self._roll_back(trainer, task, message)}"
        for parameter in task.parameters():
            parameter.grad = None  # which every optimizer leaves alone
        self._warn(f"{message}; fault {self.faults} of at most {self.max_faults}, {self.on_fault}")

    def _roll_back(self, trainer: L.Trainer, task: Task, message: str) -> str:
        path = last_checkpoint(trainer)
        if path is None:
            raise Diverged(f"{message}; there is no checkpoint yet to go back to")
        checkpoint = trainer.strategy.load_checkpoint(path, weights_only=True)
        task.on_load_checkpoint(checkpoint)
        trainer.strategy.load_model_state_dict(checkpoint)
        if "optimizer_states" in checkpoint:  # else the strategy has done it
            trainer.strategy.load_optimizer_state_dict(checkpoint)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EMA):
                callback.on_load_checkpoint(trainer, task, checkpoint)
        self._lr_scale *= self.rollback_factor
        task.configure_rates(self._lr_scale)
        return f"back to the weights of step {checkpoint['global_step']}, learning rate x {self._lr_scale:g} from here"

    # ---- ending

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if self._ending and not trainer.fit_loop._should_accumulate() and not ends(trainer):
            self._in_validation = validation_follows(trainer)
            raise self._preempted(self._end(trainer))

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Leave a validation, which may take longer than the time that is left; the resumed run begins it again."""
        if trainer.state.fn != "fit" or trainer.should_stop:
            return
        self._ending = self._signal is not None
        if trainer.world_size > 1:
            if batch_idx % EVERY:
                return
            self._ending = trainer.strategy.reduce_boolean_decision(self._ending, all=False)
        if self._ending:
            raise self._preempted("within a validation")  # `on_exception` saves, and EMA restores the weights

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Preempted) and trainer.validating:
            self._in_validation, trainer.training = True, True
            exception.args = (self._end(trainer),)

    def _preempted(self, message: str) -> Preempted:
        return Interrupted(message) if self._signal == signal.SIGINT else Preempted(message)

    def _end(self, trainer: L.Trainer) -> str:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return f"asked to end at step {trainer.global_step} of a trial, of which nothing is kept"
        path = save_last(trainer)
        note = requeue(trainer) if self._signal not in (signal.SIGTERM, signal.SIGINT) else ""
        return f"asked to end at step {trainer.global_step}: saved {path}; the command with --resume auto goes on{note}"

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the resumed run begin with the validation that was due or had begun.

        Lightning assumes that a training step whose validation did not begin needs none.
        """
        if not self._in_validation:
            return
        loops = checkpoint["loops"]["fit_loop"]
        batches = loops["epoch_loop.batch_progress"]
        for count in (batches["total"], batches["current"]):
            count["completed"] = count["processed"]
        validation = loops["epoch_loop.val_loop.batch_progress"]
        done = validation["total"]["completed"]
        validation["total"] = {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}
        validation["current"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}


def _nothing() -> None:
    pass


@rank_zero_only
def _announce_end() -> None:
    """Answer Ctrl-C, from within its handler: by the system's own write, since it may have interrupted a `print`."""
    show_cursor = b"\x1b[?25h" if os.isatty(2) else b""  # which the progress bar hides until it ends
    os.write(2, show_cursor + b"\nending after this optimizer step, with a checkpoint; Ctrl-C again ends at once\n")


def requeue(trainer: L.Trainer) -> str:
    """Put the job back into SLURM's queue, if it is one of SLURM's; return a note on what became of that."""
    cluster = trainer._accelerator_connector.cluster_environment
    if not isinstance(cluster, SLURMEnvironment) or not cluster.auto_requeue or not trainer.is_global_zero:
        return ""
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ["SLURM_JOB_ID"]
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
    status = subprocess.run(["scontrol", "requeue", job], check=False).returncode
    return f"; scontrol requeue {job} failed: {status}" if status else f"; job {job} was put back into the queue"
