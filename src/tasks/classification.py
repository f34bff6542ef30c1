"""Fine-tuning: classify texts with a pretrained BERT."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from src.data import Baselines, ClassificationDataModule, TextDataModule
from src.data.baselines import majority_accuracy, mean_losses
from src.distributed import gather_objects
from src.models import BERTClassifier, BERTClassifierConfig
from src.predictions import prediction_row
from src.tasks.base import Batch, Charts, Task, update_mean
from src.tasks.bert import EncoderTask


class ClassificationModule(EncoderTask):
    """Train a BERT with a classifier on [CLS] (Devlin et al. 2018, section 4.1).

    Its ``pretrained`` may be a pretrained BERT or a retriever, whose encoder is taken over, or a classifier with the
    same labels. Logs over the whole validation and test splits: loss, accuracy, and F1 averaged over the labels.
    """

    architecture = "bert_classifier"
    data_class = ClassificationDataModule
    charts: ClassVar[Charts] = {**Task.charts, "Quality": {"Accuracy and F1": ["val/accuracy", "val/f1"]}}
    model: BERTClassifier

    def __init__(self, config: BERTClassifierConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)

    def check_data(self, data: TextDataModule) -> None:
        super().check_data(data)
        assert isinstance(data, ClassificationDataModule)
        self.config = replace(self.config, n_labels=len(data.label_names))

    def setup(self, stage: str) -> None:
        """Take the number of labels from the data."""
        super().setup(stage)
        n = self.config.n_labels
        self.loss = MeanMetric()
        self.accuracy = MulticlassAccuracy(n, average="micro", ignore_index=-100)
        self.f1 = MulticlassF1Score(n, average="macro", ignore_index=-100)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the names of the labels to what every task saves."""
        super().on_save_checkpoint(checkpoint)
        assert isinstance(self.data, ClassificationDataModule)
        checkpoint["label_names"] = list(self.data.label_names)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        return {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}

    def targets(self, batch: Batch) -> dict[str, Any]:
        """None: the logits are few."""
        return {}

    def summed_losses(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"loss": cross_entropy(outputs, batch["labels"], reduction="sum")}

    def update_metrics(self, outputs: Tensor, batch: Batch) -> None:
        labels = batch["labels"]
        update_mean(self.loss, self.summed_losses(outputs, batch)["loss"], (labels != -100).sum())
        self.accuracy.update(outputs.argmax(-1), labels)
        self.f1.update(outputs.argmax(-1), labels)

    def log_metrics(self, split: str, prefix: str) -> None:
        self.log_means(prefix, "loss", "accuracy", "f1")

    def baselines(self) -> Baselines:
        """Throw a die, and answer by the frequencies of the labels, which is the majority's always."""
        assert isinstance(self.data, ClassificationDataModule)
        train, validation = self.data.targets("train"), self.data.targets("validation")
        losses = mean_losses(train, validation, self.config.n_labels)
        return Baselines(
            {
                "uniform": {"loss": losses["uniform"], "accuracy": 1 / self.config.n_labels},
                "majority": {"loss": losses["unigram"], "accuracy": majority_accuracy(train, validation)},
            }
        )

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Compute the ``probabilities`` of the labels, (batch, labels), with the ``index`` of each row, (batch,)."""
        return {"probabilities": torch.softmax(self.outputs(batch).float(), -1), "index": batch["index"]}

    def prediction_table(self, predictions: list[dict[str, Tensor]]) -> list[Mapping[str, Any]]:
        """Set texts and labels of the test split beside what was predicted for them."""
        data = self.data
        assert isinstance(data, ClassificationDataModule)
        texts, labels, names = data.texts("test"), data.dataset("test").labels, data.label_names
        found = {}
        for batch in chain.from_iterable(gather_objects(predictions)):
            for i, probabilities in zip(batch["index"].tolist(), batch["probabilities"].tolist(), strict=True):
                if i >= 0:  # the others fill up a batch
                    found[i] = prediction_row(texts[i], names, probabilities, names[labels[i]])
        return [found[i] for i in sorted(found)]
