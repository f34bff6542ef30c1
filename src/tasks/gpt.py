"""Language modelling: predict the next token."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from src.data import Baselines, LMDataModule
from src.data.baselines import mean_losses, note
from src.models import GPT, GPTConfig
from src.tasks.base import Batch, Charts, Task, update_mean


class GPTModule(Task):
    """Train a GPT to predict the next token.

    Logs over the whole validation and test splits: loss in nats per token, perplexity ``exp(loss)``, and bits per byte
    of the original text, which compares models with different tokenizers.
    """

    architecture = "gpt"
    data_class = LMDataModule
    charts: ClassVar[Charts] = {
        **Task.charts,
        "Quality": {"Perplexity": ["val/perplexity"], "Bits a byte": ["val/bits_per_byte"]},
    }
    model: GPT

    def __init__(self, config: GPTConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.loss = MeanMetric()
        # a GPT has it, of the networks that learn its task
        self.predicts_future = getattr(config, "n_future_tokens", 1) > 1
        if self.predicts_future:
            names = ("next_token_loss", "future_token_loss")
            self.averaged_over = dict.fromkeys(names, "target_tokens")  # type: ignore[misc]  # by the configuration
            self.comparable_loss = "train/next_token_loss"
            curves = {
                "Training and validation": [self.comparable_loss, "val/loss"],
                "Further tokens, and all": ["train/future_token_loss", "train/loss"],
            }
            self.charts = {**self.charts, "Loss": curves}  # type: ignore[misc]

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        return {name: batch[name] for name in ("input_ids", "documents") if name in batch}

    def count_tokens(self, batch: Batch) -> int:
        return batch["input_ids"].numel()

    def targets(self, batch: Batch) -> dict[str, Any]:
        """Ask for the loss, and with ``n_future_tokens`` for that of the further tokens too."""
        return {**super().targets(batch), **({"future": True} if self.predicts_future else {})}

    def summed_losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Take the cross-entropy of the next tokens, and with ``n_future_tokens`` that of the further ones."""
        return dict(zip(self.averaged_over, outputs if type(outputs) is tuple else [outputs], strict=True))

    def evaluate(self, batch: Batch) -> None:
        summed = self.outputs(batch, labels=batch["labels"])
        if summed is not None:
            self.update_metrics(summed, batch)

    def update_metrics(self, outputs: Tensor, batch: Batch) -> None:
        update_mean(self.loss, outputs, (batch["labels"] != -100).sum())

    def _figures(self, loss: Tensor, split: str) -> dict[str, Tensor]:
        """Compute what is logged of a split from its mean loss in nats."""
        assert isinstance(self.data, LMDataModule)
        bits_per_byte = loss / math.log(2) / self.data.bytes_per_token(split)
        return {"loss": loss, "perplexity": torch.exp(loss), "bits_per_byte": bits_per_byte}

    def baselines(self) -> Baselines:
        """Compute the losses of a uniform, a unigram and a bigram model."""
        assert isinstance(self.data, LMDataModule)
        train, validation = self.data.targets("train"), self.data.targets("validation")
        figures = {}
        for model, loss in mean_losses(train, validation, self.data.vocab_size).items():
            found = self._figures(torch.tensor(loss), "validation")
            figures[model] = {name: figure.item() for name, figure in found.items()}
        return Baselines(figures, note(train.extent, validation.extent))

    def log_metrics(self, split: str, prefix: str) -> None:
        loss = self.loss.compute()
        self.loss.reset()
        for name, figure in self._figures(loss, split).items():
            self.log(f"{prefix}/{name}", figure, prog_bar=name == "loss")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the log-probability of each target token, (batch, seq); 0 where there is no target."""
        return -cross_entropy(self.outputs(batch).transpose(1, 2), batch["labels"], reduction="none")
