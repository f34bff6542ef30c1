"""Reranking: a BERT that reads a query together with a passage, and scores how well the one answers the other."""

from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from src.data import TextDataModule
from src.extras.retrieval.data import RerankerDataModule
from src.models import BERTClassifier, BERTClassifierConfig
from src.optim import Schedule
from src.tasks.base import Batch, Task
from src.tasks.bert import check_encoder, check_lengths, load_encoder


class RerankerModule(Task):
    """Train a cross-encoder: a BERT with one label, the score of ``[CLS] query [SEP] passage [SEP]``.

    The loss is the cross-entropy of a query's own passage among those of its group, whose others are the passages that
    a first search mistakes for it (Gao et al. 2021; the network is that of Nogueira and Cho 2019).

    Logs over the whole validation and test splits: loss, the mean reciprocal rank (MRR) of the own passage within its
    group, and how often that is the first.

    Args:
        config: shape of the network; that of the pretrained one. The vocabulary size comes from the data.
        optimizer: class and arguments of the optimizer; ``lr`` is the peak of the schedule.
        schedule: of the learning rate.
        pretrained: the checkpoint of a pretrained BERT or a retriever, whose encoder is taken over, or of a reranker;
            from scratch if null.
        frozen_layers: blocks, from the lowest on, that stay as they were pretrained, and the embeddings with them: a
            step takes less time and memory.
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
        frozen_layers: int = 0,
        compile: bool = False,  # noqa: A002
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(replace(config, n_labels=1), optimizer, schedule, compile, activation_checkpointing)
        if not 0 <= frozen_layers <= config.n_layers:
            raise ValueError(f"frozen_layers is {frozen_layers}: the network has {config.n_layers} layers")
        self.pretrained, self.frozen_layers = pretrained, frozen_layers
        self.loss, self.mrr, self.accuracy = MeanMetric(), MeanMetric(), MeanMetric()

    def check_data(self, data: TextDataModule) -> None:
        check_lengths(self, data, RerankerDataModule)

    def build_model(self) -> BERTClassifier:
        model = BERTClassifier(self.config)
        if self.frozen_layers:
            encoder = model.encoder
            lowest = [encoder.token_embedding, encoder.position_embedding, encoder.segment_embedding]
            for module in (*lowest, encoder.embedding_norm, *encoder.blocks[: self.frozen_layers]):
                module.requires_grad_(False)
        return model

    def load_pretrained(self, checkpoint: dict[str, Any]) -> None:
        """Take over the encoder of a pretrained BERT or a retriever, or a whole reranker.

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

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        return {name: batch[name].flatten(0, 1) for name in ("input_ids", "token_type_ids", "attention_mask")}

    def count_tokens(self, batch: Batch) -> int:
        """The real tokens of a batch: padding is no work done."""
        return int(batch["attention_mask"].sum())

    def scores(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The score of each passage, (batch, group), -inf where there is none."""
        numbers = batch["passage_numbers"]
        missing = numbers < 0
        missing[:, 0] = False  # so that a row that only fills up a batch has a finite loss, which is ignored
        return outputs.float().view(numbers.shape).masked_fill(missing, -torch.inf)

    def summed_loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy in nats, summed over the queries."""
        return cross_entropy(self.scores(outputs, batch), batch["labels"], reduction="sum")

    def _evaluate(self, batch: Batch) -> None:
        outputs, real = self.outputs(batch), batch["labels"] >= 0
        if outputs is None:
            return
        scores, n = self.scores(outputs, batch)[real], real.sum()
        ranks = 1 + (scores[:, 1:] >= scores[:, :1]).sum(1)  # a tie is no success
        # a batch may be all padding, where the ranks have unequal shares of the split
        self.loss.update(self.summed_loss(outputs, batch) / n.clamp(min=1), weight=n)
        self.mrr.update((1 / ranks).sum() / n.clamp(min=1), weight=n)
        self.accuracy.update((ranks == 1).sum() / n.clamp(min=1), weight=n)

    def _log_evaluation(self, prefix: str) -> None:
        for name, metric in (("loss", self.loss), ("mrr", self.mrr), ("accuracy", self.accuracy)):
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
        """The score of each passage of each query, (batch, group)."""
        return self.scores(self.outputs(batch), batch)
