"""Training steps of a run, timed within the run itself."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.throughput import get_available_flops

from src.callbacks.throughput import Throughput, training_flops
from src.extras.bench.benchmark import Record, Steps
from src.extras.bench.huggingface import HuggingFaceTraining
from src.extras.bench.peers import Batch, External
from src.extras.bench.profiler import PeakMemory, StepProfiler, clock
from src.hardware import compute_dtype, matmul_peak
from src.tasks import Task


class TrainingBench(L.Callback):
    """First a round whose steps are profiled, then rounds in which the run and another program take turns.

    A round is ``warmup`` steps that do not count and ``steps`` that do, to the clock from the end of one step to the
    end of another. The other program has its turn between two steps of the run, on the batches of the round before
    it. The last in the list of callbacks.

    Args:
        record: what is measured goes there.
        warmup: optimizer steps.
        steps: optimizer steps.
        make_peer: makes the other program, once the run is set up; None where there is none.
        profiler: the run's.
    """

    def __init__(
        self,
        record: Record,
        warmup: int,
        steps: int,
        make_peer: Callable[[L.Trainer, Task, Batch], HuggingFaceTraining | External] | None,
        profiler: StepProfiler,
    ) -> None:
        self.record, self.warmup, self.steps = record, warmup, steps
        self.make_peer, self.profiler = make_peer, profiler
        self.settings = {"steps a round": f"{steps}, after {warmup} that do not count"}
        self.peer: HuggingFaceTraining | External | None = None
        self.first_batch: Batch = {}
        self._batches: list[Batch] = []
        self._step = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Task)
        self.first_batch = self.first_batch or batch
        self._batches.append(batch)
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        done, device = trainer.global_step % (self.warmup + self.steps), trainer.strategy.root_device
        if done == self.warmup:
            self._warm_batches = len(self._batches)
            self._memory = PeakMemory(device)
            self._start = clock(device) if self.record.steps else self.profiler.begin(device)
        elif done == 0:
            self._end_round(trainer, pl_module)

    def _end_round(self, trainer: L.Trainer, task: Task) -> None:
        device = trainer.strategy.root_device
        seconds = (clock(device) if self.record.steps else self.profiler.end()) - self._start
        batches = self._batches[self._warm_batches :]
        tokens = sum(int(task.count_tokens(batch)) for batch in batches)
        if self.record.steps is None:
            dtype = compute_dtype(str(trainer.precision))
            data_sheet = get_available_flops(device, dtype) if device.type == "cuda" else None
            self.record.steps = Steps(
                self.steps,
                tokens,
                seconds,
                parts=dict(self.profiler.seconds),
                flops=flops_of(task, batches),
                peak=self.record.machine.peaks.get(str(dtype).removeprefix("torch.")) or matmul_peak(dtype, device),
                data_sheet=data_sheet,
                peak_memory=self._memory.bytes(),
            )
        else:
            self.record.own.append(tokens / seconds)
            if self.peer is not None:
                self.record.theirs.append(self.peer.rate(self._batches))
        if self.peer is None and self.make_peer is not None:
            self.peer = self.make_peer(trainer, task, self._batches[0])
            self.record.against = self.peer.about
        self._batches = []
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Throughput):
                callback.restart()  # the other program's turn is no time of the run


def flops_of(task: Task, batches: list[Batch]) -> int:
    """Count the FLOP of training on these batches; those of equal shapes are counted once."""
    known: dict[tuple[torch.Size, ...], int] = {}
    total = 0
    for batch in batches:
        shapes = tuple(tensor.shape for tensor in task.inputs(batch).values())
        if shapes not in known:
            known[shapes] = training_flops(task, batch)
        total += known[shapes]
    return total
