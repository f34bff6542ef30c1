"""An exponential moving average of the weights, which often translates and generalises better than the last ones."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from src.errors import InputError


class EMA(L.Callback):
    """Keep an average of the weights; validate with it, and save it as the weights of every checkpoint.

    After each optimizer step ``average = d · average + (1 - d) · weights``, where d grows to ``decay`` from the start:
    ``min(decay, (1 + step) / (10 + step))``, so that the first weights are soon forgotten. Training itself goes on
    with the plain weights, which a checkpoint holds beside the average, so that a run resumes exactly.

    List it before callbacks that use the network after a validation.

    Args:
        decay: share of the old average that stays at each step.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"decay is {decay}: it must be at least 0 and less than 1")
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._step = 0
        self._swapped = False

    def check(self, trainer: L.Trainer) -> None:
        """Refuse a strategy whose processes hold parts of the network.

        Raises:
            InputError: naming it.
        """
        if hasattr(trainer.strategy, "whole_state_dict"):
            raise InputError(
                f"EMA averages whole weights, and under {type(trainer.strategy).__name__} no process has them: leave "
                "the callback out, or train on one device or under ddp"
            )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.check(trainer)

    @staticmethod
    def _weights(pl_module: L.LightningModule) -> dict[str, Tensor]:
        return {name: parameter.data for name, parameter in pl_module.named_parameters() if parameter.requires_grad}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._average:
            self._average = {name: weight.clone() for name, weight in self._weights(pl_module).items()}
        self._average = {name: tensor.to(pl_module.device) for name, tensor in self._average.items()}
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        weights = self._weights(pl_module)
        torch._foreach_lerp_([self._average[name] for name in weights], list(weights.values()), 1 - decay)

    def _swap(self, pl_module: L.LightningModule) -> None:
        for name, weight in self._weights(pl_module).items():
            held = self._average[name].clone()
            self._average[name].copy_(weight)
            weight.copy_(held)
        self._swapped = not self._swapped

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._average:
            self._swap(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._swapped:
            self._swap(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.on_validation_end(trainer, pl_module)  # what is saved on the way out must not take one for the other

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Swap them in the file."""
        if self._average and not self._swapped:
            checkpoint["plain_weights"] = {name: checkpoint["state_dict"][name] for name in self._average}
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **self._average}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """To train on, swap them back; all else goes on with the average."""
        if trainer.state.fn != "fit" or "plain_weights" not in checkpoint:
            return
        self._average = {name: checkpoint["state_dict"][name].clone() for name in checkpoint["plain_weights"]}
        weights = self._weights(pl_module)
        for name, plain in checkpoint["plain_weights"].items():
            weights[name].copy_(plain)
