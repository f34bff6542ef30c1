"""What every task shares: optimizer, schedule, clipping, logging, and what a checkpoint carries beside the weights."""

import math
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils import cpp_extension
from torch.utils.checkpoint import checkpoint

from src.checkpoint import check_compatible, read_checkpoint
from src.data import Baselines, TextDataModule
from src.distributed import PipelineStrategy, clip_by_global_norm
from src.errors import InputError
from src.nn import Block
from src.optim import Schedule, parameter_groups

Batch = dict[str, Tensor]


def quote_path_of_torch() -> None:
    """Quote the folder that ``torch.compile`` gives to the linker, so that the project's path may have spaces."""
    cpp_extension.TORCH_LIB_PATH = shlex.quote(str(Path(torch.__file__).parent / "lib"))


class Task(L.LightningModule, ABC):
    """A network, its objective and its training.

    A subclass names its ``architecture``, builds its network, and says what the network is given and what its output
    costs. The two are apart so that a strategy can run them on different processes.

    Args:
        config: shape of the network.
        optimizer: makes the optimizer from parameter groups.
        schedule: of the learning rate, a factor at each optimizer step.
        compile: whether to compile each block with ``torch.compile``.
        activation_checkpointing: whether to compute what is in a block anew for its backward pass, instead of keeping
            it: a third more work, for the memory of all blocks but one (Chen et al. 2016).
    """

    architecture: str
    model: nn.Module
    in_batch_negatives = False  # whether the loss of a row depends on the other rows of its batch
    pretrained: str | None = None  # the checkpoint whose weights training starts from

    def __init__(
        self,
        config: Any,
        optimizer: OptimizerCallable,
        schedule: Schedule,
        compile: bool,  # noqa: A002
        activation_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.config = config
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.compile_blocks, self.activation_checkpointing = compile, activation_checkpointing
        # figures of each batch since the last log: by name, and whether each is a share of its step
        self.collected: dict[tuple[str, bool], list[Tensor]] = {}
        self.steps_since_log = 0
        self.pipeline: PipelineStrategy | None = None  # set by it, where no process has the whole network
        self.batches: list[tuple[int, Batch, Tensor]] = []  # of the optimizer step at hand: index, batch and loss
        self.guard: Callable[[Tensor], None] | None = None  # is shown the gradient norm of each step before it is made
        self.lr_scale = 1.0  # on the learning rate, beside the schedule's

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The network of ``self.config``, with its initial weights."""

    @abstractmethod
    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """The network's arguments for a batch."""

    @abstractmethod
    def summed_loss(self, outputs: Any, batch: Batch) -> Tensor:
        """The loss summed over the batch's target tokens, 0-dim."""

    def loss_parts(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss by name, to be summed; each is this batch's share of a mean over the optimizer step.

        ``batch["target_tokens"]`` is that step's count of targets over all accumulated batches and all ranks, divided
        by the number of those: so k batches of B train as one of k·B, whatever the counts in each.
        """
        return {"loss": self.summed_loss(outputs, batch) / batch["target_tokens"]}

    @property
    def data(self) -> TextDataModule:
        """The data that this task runs on."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def count_tokens(self, batch: Batch) -> int | Tensor:
        """The tokens of a batch that the network reads, for its speed; a 0-dim tensor, so as not to wait for a GPU."""
        return batch["input_ids"].numel()

    def outputs(self, batch: Batch) -> Any:
        """What the network says of a batch; null where another process of a pipeline has it."""
        return self.model(**self.inputs(batch)) if self.pipeline is None else self.pipeline.forward(batch)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss of a batch."""
        if self.pipeline is None:
            return self.loss_parts(self.outputs(batch), batch)
        return self.pipeline.losses(batch)  # which runs the backward pass between the forward ones

    @property
    def whole_head(self) -> bool:
        """Whether the output layer is whole in this process, so that a loss can be had from it without the logits."""
        return type(self.trainer.strategy) in (SingleDeviceStrategy, DDPStrategy)

    def n_parameters(self) -> int:
        """The parameters of the whole network, however many of them this process holds."""
        with torch.device("meta"):
            return sum(p.numel() for p in self.build_model().parameters())

    def check_data(self, data: TextDataModule) -> None:
        """Refuse data that the network cannot be run on, before anything is made.

        Raises:
            InputError: naming both.
        """

    def baselines(self) -> Baselines:
        """What models that only count reach on the validation split, by the names that a validation logs.

        Called by one process alone: it must wait for no other.
        """
        return Baselines({})

    def configure_model(self) -> None:
        """Build the network, once, under the precision and device of the strategy."""
        if not hasattr(self, "model"):
            self.model = self.build_model()
            # a run that goes on has weights of its own, and the other verbs evaluate a checkpoint
            if self.pretrained and self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.ckpt_path:
                self.load_pretrained(read_checkpoint(self.pretrained))
            # both in place: a wrapper would put its name into every key of the checkpoint
            for block in self.model.modules():
                if isinstance(block, Block) and self.activation_checkpointing:
                    block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
                if isinstance(block, Block) and self.compile_blocks:
                    quote_path_of_torch()
                    block.compile()

    def load_pretrained(self, checkpoint: dict[str, Any]) -> None:
        """Take over the weights of a checkpoint.

        Raises:
            InputError: it is of another architecture, shape or tokenizer.
        """
        self.check_pretrained(checkpoint, self.data)
        weights = checkpoint["state_dict"].items()
        self.model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights})

    def check_pretrained(self, checkpoint: dict[str, Any], data: TextDataModule) -> None:
        """Refuse a checkpoint whose weights cannot be taken over.

        Raises:
            InputError: it is of another architecture, shape or tokenizer.
        """
        self.check_checkpoint(checkpoint, data)

    # ---- training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the whole optimizer step, as this batch's share of it; its parts are logged apart."""
        parts = self.losses(batch)
        loss = torch.stack(list(parts.values())).sum()
        for name, value in {**parts, "loss": loss}.items():
            self.collect(name, value)
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.batches.clear()
        self.batches.append((batch_idx, batch, loss.detach()))
        return loss

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
        """The optimizer over two parameter groups, and the schedule by optimizer steps.

        Raises:
            InputError: the schedule needs the length of the run, and only its time is limited.
        """
        steps = self.total_steps()
        if steps == -1 and self.schedule.needs_total_steps:
            raise InputError(
                f"{type(self.schedule).__name__} falls to its end at the last step, and neither trainer.max_steps nor "
                "trainer.max_epochs says which one that is: set one of them, or take the schedule Constant"
            )
        optimizer = self.make_optimizer(parameter_groups(self.model))
        self._configured = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        self._scheduler = LambdaLR(optimizer, partial(self._factor, total_steps=steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._scheduler, "interval": "step"}}

    def _factor(self, step: int, total_steps: int) -> float:
        return self.lr_scale * self.schedule.factor(step, total_steps)

    def total_steps(self) -> int:
        """Optimizer steps of the whole run; -1 if only its time is limited."""
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

    def configure_rates(self) -> None:
        """Let the configuration rule over what a resumed checkpoint brought into the optimizer and the schedule."""
        scheduler = self._scheduler
        scheduler.base_lrs = [group["lr"] for group in self._configured]
        factor = self._factor(scheduler.last_epoch, self.total_steps())
        for group, configured in zip(scheduler.optimizer.param_groups, self._configured, strict=True):
            group.update(configured, initial_lr=configured["lr"], lr=configured["lr"] * factor)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by the global norm, show it to the guard, and log it as it was before clipping, with loss and rate."""
        self.steps_since_log += 1
        by_value = gradient_clip_algorithm == "value"
        # a strategy whose processes hold parts of the network has its own way to the norm of the whole
        clip = getattr(self.trainer.strategy, "clip_gradients", clip_by_global_norm)
        norm = clip(self.model.parameters(), None if by_value else gradient_clip_val)
        if self.guard is not None:
            self.guard(norm)
        if by_value:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log_step(norm, optimizer.param_groups[0]["lr"])

    def _log_step(self, gradient_norm: Tensor, learning_rate: float) -> None:
        shares = self.steps_since_log * self.trainer.accumulate_grad_batches
        found = self.collected.items()
        sums = [torch.stack(values).sum() / (shares if share else len(values)) for (_, share), values in found]
        means = self.trainer.strategy.reduce(torch.stack(sums), reduce_op="mean")
        for (name, _), mean in zip(self.collected, means.unbind(), strict=True):
            self.log(f"train/{name}", mean, prog_bar=name == "loss")
        self.collected.clear()
        self.steps_since_log = 0
        self.log("train/gradient_norm", gradient_norm)
        self.log("train/learning_rate", learning_rate)

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes the file enough by itself: which network it is, its shape and its tokenizer."""
        checkpoint["architecture"] = self.architecture
        checkpoint["model_config"] = asdict(self.config)
        checkpoint["tokenizer"] = self.data.tokenizer.to_str()
        checkpoint["special_tokens"] = dict(self.data.special_tokens)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_checkpoint(checkpoint, self.data)

    def check_checkpoint(self, checkpoint: dict[str, Any], data: TextDataModule) -> None:
        """Refuse a checkpoint of another architecture, shape or tokenizer.

        Raises:
            InputError: naming the first thing that differs.
        """
        check_compatible(checkpoint, self.architecture, asdict(self.config), data.tokenizer.to_str())
