"""An exponential moving average of the weights, which often translates and generalises better than the last ones."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from src.errors import InputError


class EMA(L.Callback):
    """Keep an average of the weights; validate with it, and save it as the weights of every checkpoint.

    After each optimizer step ``average = d · average + (1 - d) · weights``, where d grows to ``decay`` from the start:
    ``min(decay, (1 + step) / (10 + step))``, so that the first weights are soon forgotten. Training itself goes on
    with the plain weights, which a checkpoint holds beside the average, so that a run resumes exactly.

    List it before callbacks that use the network after a validation.

    Args:
        decay: fraction of the old average that is kept at each step.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"decay is {decay}: it must be at least 0 and less than 1")
        self.decay = decay
        self._average: dict[str, Tensor] = {}  # of each trained weight, by the first of its names
        self._plain: dict[str, Tensor] = {}  # while the average is in the network
        self._step = 0

    def check(self, trainer: L.Trainer) -> None:
        """Refuse a strategy that shards the network."""
        strategy: Any = trainer.strategy
        of_lightning = isinstance(strategy, FSDPStrategy | ModelParallelStrategy)
        if getattr(strategy, "is_sharded", of_lightning or getattr(strategy, "zero_stage_3", False)):
            raise InputError(
                f"EMA averages whole weights, and under {type(strategy).__name__} no process has them: leave "
                "the callback out, or train on one device, under ddp, or under ZeRO 1 or 2"
            )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":  # a Trainer from Python has checked nothing before
            self.check(trainer)

    @staticmethod
    def _weights(pl_module: L.LightningModule) -> dict[str, Tensor]:
        return {name: parameter.data for name, parameter in pl_module.named_parameters() if parameter.requires_grad}

    @staticmethod
    def _under_all_names(weights: dict[str, Tensor], pl_module: L.LightningModule) -> dict[str, Tensor]:
        """Name the weights as in a state dict: a tied one under each of its names."""
        first = {parameter: name for name, parameter in pl_module.named_parameters()}
        names = pl_module.named_parameters(remove_duplicate=False)
        return {name: weights[first[parameter]] for name, parameter in names if first[parameter] in weights}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._average:
            self._average = {name: _precise(weight).clone() for name, weight in self._weights(pl_module).items()}
        self._average = {name: tensor.to(pl_module.device) for name, tensor in self._average.items()}
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        weights = {name: _precise(weight) for name, weight in self._weights(pl_module).items()}
        torch._foreach_lerp_([self._average[name] for name in weights], list(weights.values()), 1 - decay)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._average:
            return
        weights = self._weights(pl_module)
        self._plain = {name: weight.clone() for name, weight in weights.items()}
        _copy(self._average, weights)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _copy(self._plain, self._weights(pl_module))
        self._plain = {}

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.on_validation_end(trainer, pl_module)  # else a checkpoint that is saved now would swap the two

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the weights, and the plain weights beside it."""
        if self._average:
            plain = self._plain or self._weights(pl_module)
            checkpoint["plain_weights"] = self._under_all_names(plain, pl_module)
            average = self._under_all_names(self._average, pl_module)
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **average}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore both to train on; everything else uses the average."""
        if trainer.state.fn != "fit" or "plain_weights" not in checkpoint:
            return
        weights = self._weights(pl_module)
        self._average = {name: _precise(checkpoint["state_dict"][name]).clone() for name in weights}
        _copy(checkpoint["plain_weights"], weights)


def _precise(weight: Tensor) -> Tensor:
    """In float32 at least: in bfloat16 a thousandth of a difference would be rounded away."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def _copy(values: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Set the weights that there are values for."""
    for name in weights.keys() & values.keys():
        weights[name].copy_(values[name])
