"""Language modelling: predict the next token."""

import math

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from src.data import Baselines, LMDataModule, TextDataModule
from src.data.baselines import mean_losses, note
from src.errors import InputError
from src.models import GPT, GPTConfig
from src.nn import summed_cross_entropy
from src.optim import Schedule
from src.tasks.base import Batch, Task


class GPTModule(Task):
    """Train a GPT to predict the next token.

    Logs over the whole validation and test splits: loss in nats per token, perplexity ``exp(loss)``, and bits per byte
    of the original text, which compares models with different tokenizers.

    Args:
        config: shape of the network; the vocabulary size comes from the data.
        optimizer: class and arguments of the optimizer; ``lr`` is the peak of the schedule.
        schedule: of the learning rate.
        pretrained: a checkpoint of such a network, whose weights training starts from; from scratch if null.
        compile: whether to compile each block with ``torch.compile``.
        activation_checkpointing: whether to compute blocks anew for their backward pass, to save memory.
    """

    architecture = "gpt"
    model: GPT

    def __init__(
        self,
        config: GPTConfig,
        optimizer: OptimizerCallable,
        schedule: Schedule,
        pretrained: str | None = None,
        compile: bool = False,  # noqa: A002
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(config, optimizer, schedule, compile, activation_checkpointing)
        self.pretrained = pretrained
        self.loss = MeanMetric()

    def check_data(self, data: TextDataModule) -> None:
        if not isinstance(data, LMDataModule):
            raise InputError(f"GPTModule trains on an LMDataModule, not on a {type(data).__name__}: change data")
        context = self.config.context
        if context is not None and data.seq_len > context:
            raise InputError(f"data.seq_len {data.seq_len} is more than the model's max_seq_len {context}: change one")

    def build_model(self) -> GPT:
        return GPT(self.config)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        return {name: batch[name] for name in ("input_ids", "documents") if name in batch}

    def summed_loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy in nats, summed over the labels that are not -100. ``labels[i]`` follows ``input_ids[i]``."""
        return cross_entropy(outputs.flatten(0, 1), batch["labels"].flatten(), reduction="sum")

    def _loss_from_hidden(self, batch: Batch) -> Tensor:
        """As :meth:`summed_loss` of the network's outputs, which are never made."""
        hidden = self.model.hidden(batch["input_ids"], documents=batch.get("documents"))
        return summed_cross_entropy(hidden, self.model.head.weight, batch["labels"])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if not self.whole_head:
            return super().losses(batch)
        return {"loss": self._loss_from_hidden(batch) / batch["target_tokens"]}

    def _evaluate(self, batch: Batch) -> None:
        if self.whole_head:
            loss = self._loss_from_hidden(batch)
        elif (outputs := self.outputs(batch)) is not None:
            loss = self.summed_loss(outputs, batch)
        else:
            return
        targets = (batch["labels"] != -100).sum()
        # a batch may be all padding, where the ranks have unequal shares of the split
        self.loss.update(loss / targets.clamp(min=1), weight=targets)

    def _figures(self, loss: Tensor, split: str) -> dict[str, Tensor]:
        """What is told of a split, from its mean loss in nats."""
        assert isinstance(self.data, LMDataModule)
        bits_per_byte = loss / math.log(2) / self.data.bytes_per_token(split)
        return {"loss": loss, "perplexity": torch.exp(loss), "bits_per_byte": bits_per_byte}

    def baselines(self) -> Baselines:
        """Uniform, unigram and bigram."""
        assert isinstance(self.data, LMDataModule)
        train, validation = self.data.targets("train"), self.data.targets("validation")
        figures = {}
        for model, loss in mean_losses(train, validation, self.data.vocab_size).items():
            found = self._figures(torch.tensor(loss), "validation")
            figures[model] = {name: figure.item() for name, figure in found.items()}
        return Baselines(figures, note(train.extent, validation.extent))

    def _log_evaluation(self, split: str, prefix: str) -> None:
        loss = self.loss.compute()
        self.loss.reset()
        for name, figure in self._figures(loss, split).items():
            self.log(f"{prefix}/{name}", figure, prog_bar=name == "loss")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("validation", "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test", "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log-probability of each target token, (batch, seq); 0 where there is no target."""
        losses = cross_entropy(self.outputs(batch).transpose(1, 2), batch["labels"], reduction="none")
        return -losses
