"""The optimizer of a task: its schedule, its step with clipping, and what is logged of it."""

import math
from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from src.data import TextDataModule
from src.distributed import clip_by_global_norm
from src.errors import InputError
from src.optim import GroupOptions, Schedule, parameter_groups, scale_rates


class NormCallback(L.Callback, ABC):
    """A callback that a task shows the gradient norm of each optimizer step, before the step is made."""

    @abstractmethod
    def on_gradient_norm(self, trainer: L.Trainer, task: Any, norm: Tensor) -> None:
        """Look at the norm before clipping, 0-dim; change the gradients, or end the run."""


class Optimization(L.LightningModule):
    """What a :class:`~src.tasks.base.Task` does with its gradients.

    Args:
        optimizer: class and arguments of the optimizer; ``lr`` is the peak of the schedule.
        schedule: of the learning rate, a factor at each optimizer step.
        groups: what the kinds of parameters have of their own in the optimizer.
    """

    model: nn.Module
    comparable_loss = "train/loss"  # of the training's losses the one that is computed as val/loss is

    @property
    @abstractmethod
    def data(self) -> TextDataModule:
        """The data that it runs on."""

    def __init__(self, optimizer: OptimizerCallable, schedule: Schedule, groups: GroupOptions) -> None:
        super().__init__()
        self.make_optimizer, self.schedule, self.groups = optimizer, schedule, groups
        # figures of each batch since the last log, by name and whether each is a share of its step
        self.collected: dict[tuple[str, bool], list[Tensor]] = {}
        self.steps_since_log = 0
        self._lr_scale = 1.0  # on the learning rate, beside the schedule's

    def collect(self, name: str, value: Tensor, share: bool = True) -> None:
        """Keep a batch's figure, to log ``train/NAME`` as the mean since it was last logged, over all ranks.

        Args:
            name: of the figure.
            value: 0-dim.
            share: whether it is the batch's share of its optimizer step, which then is what the mean is over: in an
                epoch's last step, of fewer batches than are accumulated, each share is larger. Else over batches.
        """
        self.collected.setdefault((name, share), []).append(value.detach())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer over its parameter groups, and the schedule by optimizer steps."""
        steps = self.total_steps()
        if steps == -1 and self.schedule.needs_total_steps:
            raise InputError(
                f"{type(self.schedule).__name__} falls to its end at the last step, and neither trainer.max_steps nor "
                "trainer.max_epochs says which one that is: set one of them, or take the schedule Constant"
            )
        groups = parameter_groups(self.model, self.groups)
        if not groups:
            raise InputError("a stage of the pipeline is frozen whole: freeze fewer, or choose another strategy")
        optimizer = self.make_optimizer(groups)
        scale_rates(optimizer)
        self._configured = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        self._scheduler = LambdaLR(optimizer, partial(self._factor, total_steps=steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._scheduler, "interval": "step"}}

    def try_optimizer(self, network: nn.Module) -> tuple[Optimizer, list[tuple[Tensor, Tensor]]]:
        """Make the optimizer and a step of it over tensors of a few elements in place of a network's parameters.

        Returns:
            The optimizer, and each parameter of the network with the tensor in its place.
        """
        pairs: list[tuple[Tensor, Tensor]] = []
        groups = []
        for group in parameter_groups(network, self.groups):
            small = [nn.Parameter(torch.zeros([min(size, 8) for size in p.shape])) for p in group["params"]]
            pairs += zip(group["params"], small, strict=True)
            groups.append({**group, "params": small})
        try:  # a negative learning rate, a step that needs a closure
            optimizer = self.make_optimizer(groups)
            for name, value in optimizer.defaults.items():
                numbers = value if isinstance(value, tuple | list) else [value]
                if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
                    raise ValueError(f"{name} is {value}: it must be finite")
            scale_rates(optimizer)
            for _, parameter in pairs:
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
        except (ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"model.optimizer: {error}") from error
        return optimizer, pairs

    def _factor(self, step: int, total_steps: int) -> float:
        return self._lr_scale * self.schedule.factor(step, total_steps)

    def total_steps(self) -> int:
        """Count the optimizer steps of the whole run; -1 if only its time is limited."""
        trainer = self.trainer
        if trainer.max_epochs in (None, -1):
            return trainer.max_steps
        batches = len(self.data.train_dataloader())
        limit = trainer.limit_train_batches
        batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
        steps = math.ceil(batches / trainer.accumulate_grad_batches) * trainer.max_epochs
        return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)

    def on_train_start(self) -> None:
        self.configure_rates()

    def configure_rates(self, lr_scale: float | None = None) -> None:
        """Let the configuration rule over what a resumed checkpoint brought into the optimizer and the schedule.

        Args:
            lr_scale: multiplies the learning rate from now on; as before if None.
        """
        self._lr_scale = self._lr_scale if lr_scale is None else lr_scale
        scheduler = self._scheduler
        scheduler.base_lrs = [group["lr"] for group in self._configured]
        factor = self._factor(scheduler.last_epoch, self.total_steps())
        for group, configured in zip(scheduler.optimizer.param_groups, self._configured, strict=True):
            group.update(configured, initial_lr=configured["lr"], lr=configured["lr"] * factor)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by the global norm, show it to callbacks, and log it as it was before clipping, with loss and rate."""
        self.steps_since_log += 1
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # which Lightning leaves to the step of a fused optimizer: too late to clip
        by_value = gradient_clip_algorithm == "value"
        # where processes hold parts of the network, the strategy has its own way to the norm of the whole
        clip = getattr(self.trainer.strategy, "clip_gradients", clip_by_global_norm)
        norm = clip(self.model.parameters(), None if by_value else gradient_clip_val)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, NormCallback):
                callback.on_gradient_norm(self.trainer, self, norm)
        if by_value and gradient_clip_val:
            clip_grad_value_(self.model.parameters(), gradient_clip_val)
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log_step(norm, optimizer.param_groups[0]["lr"])

    def _log_step(self, gradient_norm: Tensor, learning_rate: float) -> None:
        shares = self.steps_since_log * self.trainer.accumulate_grad_batches
        found = self.collected.items()
        sums = [torch.stack(values).sum() / (shares if share else len(values)) for (_, share), values in found]
        means = self.trainer.strategy.reduce(torch.stack(sums), reduce_op="mean")
        for (name, _), mean in zip(self.collected, means.unbind(), strict=True):
            self.log(f"train/{name}", mean, prog_bar=f"train/{name}" == self.comparable_loss)
        self.collected.clear()
        self.steps_since_log = 0
        self.log("train/gradient_norm", gradient_norm)
        self.log("train/learning_rate", learning_rate)
