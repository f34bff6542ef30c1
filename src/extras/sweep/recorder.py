"""What is recorded of a run in a sweep, and what ends it early."""

import hashlib
import math
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from src.errors import Diverged, InputError, RunEnded
from src.tasks import Task


class Pruned(RunEnded):
    """The run is much worse than others at the same step."""


class Recorder(L.Callback):
    """Record a run's curve, time and memory, and digests of what runs that are compared must have in common.

    Args:
        metric: that the run is judged by.
        report: takes each validation's step and value; returns whether the run is to be pruned.
        max_tokens: that may be trained on; None for any number.
    """

    def __init__(self, metric: str, report: Callable[[int, float], bool], max_tokens: int | None = None) -> None:
        self.metric, self.report, self.max_tokens = metric, report, max_tokens
        self.curve: list[tuple[int, float]] = []
        self.record: dict[str, Any] = {}
        self._batches = hashlib.sha256()
        self._tokens = 0
        self._trained = 0.0
        self._since: float | None = None  # since when the seconds of training alone go on

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.record["precision"] = str(trainer.precision)
        self.record["n_parameters"] = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        self.record["initial_weights"] = weights_digest(pl_module)
        self._start, self._cpu_start = time.perf_counter(), time.process_time()
        self._since = self._start

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        if self._since is None:
            self._since = time.perf_counter()
        for name in sorted(batch):
            if isinstance(batch[name], Tensor):
                self._batches.update(batch[name].cpu().numpy().tobytes())

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if "first_loss" not in self.record:
            self.record["first_loss"] = float(outputs["loss"])
        self.record["steps"] = trainer.global_step
        assert isinstance(pl_module, Task)
        self._tokens += int(pl_module.count_tokens(batch))
        self.record["tokens"] = self._tokens
        if self.max_tokens is not None and self._tokens > self.max_tokens:
            raise InputError(
                f"{self._tokens:,} tokens were trained on by step {trainer.global_step}, and max_tokens is "
                f"{self.max_tokens:,}: take fewer steps or smaller batches"
            )

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._since is not None:
            self._trained += time.perf_counter() - self._since
            self._since = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        logged = trainer.callback_metrics
        if self.metric not in logged:
            known = ", ".join(name for name in logged if name.startswith("val/"))
            raise InputError(f"validation logs no {self.metric!r}, which the sweep is judged by; it logs {known}")
        step, value = trainer.global_step, float(logged[self.metric])
        if not math.isfinite(value):
            raise Diverged(f"{self.metric} is {value} at step {step}")
        self.curve.append((step, value))
        # beside the curve's steps
        self.record.setdefault("tokens_at", []).append(self._tokens)
        self.record.setdefault("seconds_at", []).append(self._trained)
        self.record["metrics"] = {
            name: float(v) for name, v in logged.items() if name.startswith(("val/", "throughput/tokens"))
        }
        self._measure()
        if self.report(step, value):
            raise Pruned(f"{self.metric} {value:.4g} at step {step} was much worse than that of others")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._measure()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.record["batches"] = self._batches.hexdigest()[:16]
        self._measure()

    def _measure(self) -> None:
        """Record the time since the first step, validations included, and the peak memory so far, in MiB."""
        if not hasattr(self, "_start"):
            return
        self.record["seconds"] = time.perf_counter() - self._start
        self.record["cpu_seconds"] = time.process_time() - self._cpu_start
        if torch.cuda.is_available():
            self.record["memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
        else:
            unit = 2**20 if sys.platform == "darwin" else 2**10
            self.record["memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def weights_digest(module: torch.nn.Module) -> str:
    """Hash the matrices of a network: what is drawn at random, and so what a seed must make equal."""
    weights = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        if parameter.dim() > 1:
            weights.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
    return weights.hexdigest()[:16]
