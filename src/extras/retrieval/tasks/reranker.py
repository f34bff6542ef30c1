"""Reranking: a BERT that reads a query together with a passage, and scores how well the one answers the other."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from src.extras.retrieval.data import RerankerDataModule
from src.models import BERTClassifier, BERTClassifierConfig
from src.tasks.base import Batch, Charts, Task, update_mean
from src.tasks.bert import EncoderTask


class RerankerModule(EncoderTask):
    """Train a cross-encoder: a BERT with one label, the score of ``[CLS] query [SEP] passage [SEP]``.

    The loss is the cross-entropy of a query's own passage among those of its group, whose others are the passages that
    a first search mistakes for it (Gao et al. 2021; the network is that of Nogueira and Cho 2019).

    Logs over the whole validation and test splits: loss, the mean reciprocal rank (MRR) of the own passage within its
    group, and how often that is the first.

    Its ``pretrained`` may be a pretrained BERT or a retriever, whose encoder is taken over, or a reranker.

    Args:
        config: shape of the network; that of the pretrained one. The vocabulary size comes from the data.
        frozen_layers: blocks, from the lowest on, that stay as they were pretrained, and the embeddings with them: a
            step takes less time and memory.
    """

    architecture = "bert_classifier"
    data_class = RerankerDataModule
    charts: ClassVar[Charts] = {**Task.charts, "Quality": {"Rank of the passage": ["val/mrr", "val/accuracy"]}}
    model: BERTClassifier

    def __init__(self, config: BERTClassifierConfig, frozen_layers: int = 0, **kwargs: Any) -> None:
        super().__init__(replace(config, n_labels=1), **kwargs)
        if not 0 <= frozen_layers <= config.n_layers:
            raise ValueError(f"frozen_layers is {frozen_layers}: the network has {config.n_layers} layers")
        self.frozen_layers = frozen_layers
        self.loss, self.mrr, self.accuracy = MeanMetric(), MeanMetric(), MeanMetric()

    def build_model(self) -> BERTClassifier:
        model: BERTClassifier = super().build_model()
        if self.frozen_layers:
            encoder = model.encoder
            lowest = [encoder.token_embedding, encoder.position_embedding, encoder.segment_embedding]
            for module in (*lowest, encoder.embedding_norm, *encoder.blocks[: self.frozen_layers]):
                module.requires_grad_(False)
        return model

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        return {name: batch[name].flatten(0, 1) for name in ("input_ids", "token_type_ids", "attention_mask")}

    def targets(self, batch: Batch) -> dict[str, Any]:
        """None: the loss is made of the scores of whole groups."""
        return {}

    def scores(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Take the score of each passage, (batch, group), -inf where there is none."""
        numbers = batch["passage_numbers"]
        missing = numbers < 0
        missing[:, 0] = False  # so that a row that only fills up a batch has a finite loss, which is ignored
        return outputs.float().view(numbers.shape).masked_fill(missing, -torch.inf)

    def summed_losses(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"loss": cross_entropy(self.scores(outputs, batch), batch["labels"], reduction="sum")}

    def update_metrics(self, outputs: Tensor, batch: Batch) -> None:
        real = batch["labels"] >= 0
        scores, n = self.scores(outputs, batch)[real], real.sum()
        ranks = 1 + (scores[:, 1:] >= scores[:, :1]).sum(1)  # a tie is no success
        update_mean(self.loss, self.summed_losses(outputs, batch)["loss"], n)
        update_mean(self.mrr, (1 / ranks).sum(), n)
        update_mean(self.accuracy, (ranks == 1).sum(), n)

    def log_metrics(self, split: str, prefix: str) -> None:
        self.log_means(prefix, "loss", "mrr", "accuracy")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the score of each passage of each query, (batch, group)."""
        return self.scores(self.outputs(batch), batch)
