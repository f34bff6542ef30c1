"""Fine-tuning: classify texts with a pretrained BERT."""

from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from src.data import Baselines, ClassificationDataModule, TextDataModule
from src.data.baselines import majority_accuracy, mean_losses
from src.models import BERTClassifier, BERTClassifierConfig
from src.optim import Schedule
from src.tasks.base import Batch, Task
from src.tasks.bert import check_encoder, check_lengths, load_encoder


class ClassificationModule(Task):
    """Train a BERT with a classifier on [CLS] (Devlin et al. 2018, section 4.1).

    Logs over the whole validation and test splits: loss, accuracy, and F1 averaged over the labels.

    Args:
        config: shape of the network; that of the pretrained one. Vocabulary size and labels come from the data.
        optimizer: class and arguments of the optimizer; ``lr`` is the peak of the schedule.
        schedule: of the learning rate.
        pretrained: the checkpoint of a pretrained BERT or a retriever, whose encoder is taken over, or of a classifier
            with the same labels; from scratch if null.
        compile: whether to compile each block with ``torch.compile``.
        activation_checkpointing: whether to compute blocks anew for their backward pass, to save memory.
    """

    architecture = "bert_classifier"
    model: BERTClassifier
    config: BERTClassifierConfig

    def __init__(
        self,
        config: BERTClassifierConfig,
        optimizer: OptimizerCallable,
        schedule: Schedule,
        pretrained: str | None = None,
        compile: bool = False,  # noqa: A002
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(config, optimizer, schedule, compile, activation_checkpointing)
        self.pretrained = pretrained

    def check_data(self, data: TextDataModule) -> None:
        check_lengths(self, data, ClassificationDataModule)
        assert isinstance(data, ClassificationDataModule)
        self.config = replace(self.config, n_labels=len(data.label_names))

    def setup(self, stage: str) -> None:
        """Take the number of labels from the data."""
        self.check_data(self.data)
        n = self.config.n_labels
        self.loss = MeanMetric()
        self.accuracy = MulticlassAccuracy(n, average="micro", ignore_index=-100)
        self.f1 = MulticlassF1Score(n, average="macro", ignore_index=-100)

    def build_model(self) -> BERTClassifier:
        return BERTClassifier(self.config)

    def load_pretrained(self, checkpoint: dict[str, Any]) -> None:
        """Take over the encoder of a pretrained BERT or a retriever, or a whole classifier of the same labels.

        Raises:
            InputError: it is of another architecture, shape or tokenizer.
        """
        if checkpoint["architecture"] == self.architecture:
            super().load_pretrained(checkpoint)
            return
        self.check_pretrained(checkpoint, self.data)
        load_encoder(self.model.encoder, checkpoint)

    def check_pretrained(self, checkpoint: dict[str, Any], data: TextDataModule) -> None:
        if checkpoint["architecture"] == self.architecture:
            super().check_pretrained(checkpoint, data)
            return
        check_encoder(checkpoint, self.config, data)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the names of the labels to what every task saves."""
        super().on_save_checkpoint(checkpoint)
        assert isinstance(self.data, ClassificationDataModule)
        checkpoint["label_names"] = list(self.data.label_names)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        return {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}

    def count_tokens(self, batch: Batch) -> Tensor:
        """The real tokens of a batch: padding is no work done."""
        return batch["attention_mask"].sum()

    def summed_loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy in nats, summed over the rows."""
        return cross_entropy(outputs, batch["labels"], reduction="sum")

    def _evaluate(self, batch: Batch) -> None:
        outputs, labels = self.outputs(batch), batch["labels"]
        if outputs is None:
            return
        rows = (labels != -100).sum()
        # a batch may be all padding, where the ranks have unequal shares of the split
        self.loss.update(self.summed_loss(outputs, batch) / rows.clamp(min=1), weight=rows)
        self.accuracy.update(outputs.argmax(-1), labels)
        self.f1.update(outputs.argmax(-1), labels)

    def baselines(self) -> Baselines:
        """A die, and the frequencies of the labels, whose answer always is the majority's."""
        assert isinstance(self.data, ClassificationDataModule)
        train, validation = self.data.targets("train"), self.data.targets("validation")
        losses = mean_losses(train, validation, self.config.n_labels)
        return Baselines(
            {
                "uniform": {"loss": losses["uniform"], "accuracy": 1 / self.config.n_labels},
                "majority": {"loss": losses["unigram"], "accuracy": majority_accuracy(train, validation)},
            }
        )

    def _log_evaluation(self, prefix: str) -> None:
        for name, metric in (("loss", self.loss), ("accuracy", self.accuracy), ("f1", self.f1)):
            self.log(f"{prefix}/{name}", metric.compute(), prog_bar=name == "loss")
            metric.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The probability of each label, (batch, labels)."""
        return torch.softmax(self.outputs(batch).float(), -1)
