"""How fast a run is: tokens per second, and how much of the hardware's peak that takes."""

import time
from collections.abc import Callable
from statistics import fmean
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from src.distributed import data_parallel_size
from src.hardware import compute_dtype, matmul_peak
from src.nn import KERNELS, Head, SelfAttention
from src.tasks import Task

SHAPES = 5  # of batches, whose work is counted


def training_flops(task: Task, batch: dict[str, Any]) -> int:
    """Count the FLOP of the matmuls and the attention of a batch: forward, and backward as two forward passes."""
    inputs = {name: tensor.to("meta") for name, tensor in task.inputs(batch).items()}
    return 3 * forward_flops(task.meta_model(), inputs)


def with_future(
    model: nn.Module, inputs: dict[str, Any], output: Callable[[Head, torch.Tensor], torch.Tensor]
) -> dict[str, Any]:
    """Add the arguments with which a network predicts the further tokens of ``n_future_tokens``, as in training.

    Its output layer then gives ``output`` in place of the loss, which the meta device cannot compute.
    """
    if not getattr(model, "future_blocks", None):
        return inputs
    for module in model.modules():
        if isinstance(module, Head):
            module.forward = lambda x, head=module, **_: output(head, x)  # type: ignore[method-assign]
    return {**inputs, "labels": inputs["input_ids"], "future": True}


def forward_flops(model: nn.Module, inputs: dict[str, torch.Tensor]) -> int:
    """Count the FLOP of the matmuls and attention of a network's forward pass in training, without dropout.

    On the meta device, where nothing is computed; on a CPU the counter does not see attention.
    """
    inputs = with_future(model, inputs, lambda head, x: nn.functional.linear(x, head.weight))
    for module in model.eval().modules():
        if isinstance(module, SelfAttention) and module.kernel not in (KERNELS["dense"], KERNELS["sliding_window"]):
            # that device has no other kernels
            module.kernel = KERNELS["dense" if module.span.window is None else "sliding_window"]
    with FlopCounterMode(display=False) as counter:
        model(**inputs)
    return counter.get_total_flops()


class Throughput(L.Callback):
    """Log tokens per second over all ranks, and the utilisation of the hardware by the model's FLOPs.

    ``throughput/hardware_utilisation`` is relative to the measured peak of its matrix products, ``throughput/mfu``
    (model FLOPs utilisation, Chowdhery et al. 2022, appendix B) to the peak of the data sheet, on GPUs whose data sheet
    Lightning has.

    The ranks of a pipeline or of a tensor-parallel group read the same tokens, which count once, and share their work.
    Over the time of training alone: validation, sampling and the saving of checkpoints are left out.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        dtype, device = compute_dtype(str(trainer.precision)), trainer.strategy.root_device
        self._peaks = {"hardware_utilisation": matmul_peak(dtype, device)}
        if device.type == "cuda" and (data_sheet := get_available_flops(device, dtype)):
            self._peaks["mfu"] = data_sheet
        self._flops_of: dict[tuple[torch.Size, ...], float] = {}
        self.restart()

    def restart(self) -> None:
        self._tokens: int | torch.Tensor = 0
        self._seconds = 0.0
        self._since: float | None = time.perf_counter()

    def _pause(self) -> None:
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._pause()

    def on_train_batch_start(self, *_: Any) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def _flops_per_token(self, task: Task, batch: dict[str, Any]) -> float:
        """Count for this shape; beyond the first few shapes take the mean: to count takes as long as a small step."""
        shapes = tuple(tensor.shape for tensor in task.inputs(batch).values())
        if shapes not in self._flops_of and len(self._flops_of) < SHAPES:
            self._flops_of[shapes] = training_flops(task, batch) / max(1, int(task.count_tokens(batch)))
        return self._flops_of.get(shapes) or fmean(self._flops_of.values())

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Task)
        self._tokens += pl_module.count_tokens(batch)
        last_of_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        logging = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if last_of_step and logging:
            tokens = int(self._tokens)  # waits for a GPU, so that the time is that of the steps
            self._pause()
            speed = tokens / self._seconds * data_parallel_size(trainer.strategy)
            flops = speed * self._flops_per_token(pl_module, batch) / trainer.world_size  # per second and device
            # on the device whose backend reduces it: nccl takes no tensor of a CPU
            speeds = torch.tensor([speed, flops], device=trainer.strategy.root_device)
            tokens_per_second, flops_per_second = trainer.strategy.reduce(speeds, reduce_op="mean").unbind()
            pl_module.log("throughput/tokens_per_second", tokens_per_second, prog_bar=True)
            for name, peak in self._peaks.items():
                pl_module.log(f"throughput/{name}", flops_per_second / peak)
            self.restart()
