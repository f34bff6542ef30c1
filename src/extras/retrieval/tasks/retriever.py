"""Retrieval by vectors: queries near the passages that answer them, far from all others."""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from src.data import TextDataModule
from src.extras.retrieval.bi_encoder import BiEncoder
from src.extras.retrieval.data import RetrieverDataModule
from src.extras.retrieval.gather import first_row, gather_rows
from src.models import BERTConfig
from src.optim import Schedule
from src.tasks.base import Batch, Task
from src.tasks.bert import check_encoder, check_lengths, load_encoder

CHUNK = 512  # queries of an evaluation that are compared with all passages at once
TIE = 1e-6  # cosines that differ by less are those of equal texts, but for rounding: neither is before the other
Vectors = tuple[Tensor, Tensor]  # of queries (rows, d_model) and of passages (rows x group, d_model)


class RetrieverModule(Task):
    """Train one encoder for queries and passages: each query must find its passage among all of the batch.

    The passages of the other queries, on all ranks, and the group's own negatives are what it is told from (Karpukhin
    et al. 2020, section 3.2); the loss is the cross-entropy of the cosines. Two ranks with batches of B train as one
    with a batch of 2B. Accumulated batches are compared each within itself.

    Logs over the whole validation and test splits, each query against all passages of the split: loss, the mean
    reciprocal rank (MRR) of its own, and how often that is the first.

    Args:
        config: shape of the network; the vocabulary size comes from the data.
        optimizer: class and arguments of the optimizer; ``lr`` is the peak of the schedule.
        schedule: of the learning rate.
        temperature: divides the cosines.
        pretrained: the checkpoint of a pretrained BERT, or of a retriever, whose encoder is taken over; from scratch
            if null.
        compile: whether to compile each block with ``torch.compile``.
        activation_checkpointing: whether to compute blocks anew for their backward pass, to save memory.
    """

    architecture = "bi_encoder"
    in_batch_negatives = True
    model: BiEncoder

    def __init__(
        self,
        config: BERTConfig,
        optimizer: OptimizerCallable,
        schedule: Schedule,
        temperature: float = 0.05,
        pretrained: str | None = None,
        compile: bool = False,  # noqa: A002
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(config, optimizer, schedule, compile, activation_checkpointing)
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}: it must be above 0")
        self.temperature, self.pretrained = temperature, pretrained
        self.loss, self.mrr, self.accuracy = MeanMetric(), MeanMetric(), MeanMetric()
        self._evaluated: list[tuple[Tensor, ...]] = []

    def check_data(self, data: TextDataModule) -> None:
        check_lengths(self, data, RetrieverDataModule)

    def build_model(self) -> BiEncoder:
        return BiEncoder(self.config)

    def load_pretrained(self, checkpoint: dict[str, Any]) -> None:
        self.check_pretrained(checkpoint, self.data)
        load_encoder(self.model.encoder, checkpoint)

    def check_pretrained(self, checkpoint: dict[str, Any], data: TextDataModule) -> None:
        check_encoder(checkpoint, self.config, data)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        queries = {name: batch[name] for name in ("query_input_ids", "query_attention_mask")}
        return queries | {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}

    def count_tokens(self, batch: Batch) -> int:
        """The real tokens of a batch: padding is no work done."""
        return int(batch["query_attention_mask"].sum() + batch["attention_mask"].sum())

    def summed_loss(self, outputs: Vectors, batch: Batch) -> Tensor:
        """Cross-entropy in nats, summed over the queries of this process."""
        queries, passages = outputs
        strategy, numbers = self.trainer.strategy, batch["passage_numbers"]
        everyones = gather_rows(strategy, passages), gather_rows(strategy, numbers.flatten())
        first = first_row(strategy, numbers.numel())
        places = first + torch.arange(len(queries), device=queries.device) * numbers.shape[1]
        targets = places.masked_fill(batch["labels"] < 0, -100)
        return cross_entropy(self.similarities(queries, *everyones, places), targets, reduction="sum")

    def similarities(self, queries: Tensor, passages: Tensor, numbers: Tensor, places: Tensor) -> Tensor:
        """Cosines by the temperature, (queries, passages), -inf where a passage is no negative of a query.

        Args:
            queries: (queries, d_model).
            passages: (passages, d_model).
            numbers: (passages,), which passage each is; below 0 is none.
            places: (queries,), where each query's own passage is. Where the same one is met again, it is no negative.
        """
        with torch.autocast(queries.device.type, enabled=False):  # the cosines of near passages differ by little
            found = queries.float() @ passages.float().T / self.temperature
        again = numbers == numbers[places][:, None]
        again[torch.arange(len(places), device=places.device), places] = False
        return found.masked_fill(again | (numbers < 0), -torch.inf)

    # ---- evaluation

    def _evaluate(self, batch: Batch) -> None:
        outputs = self.outputs(batch)
        if outputs is not None:
            self._evaluated.append((*outputs, batch["passage_numbers"], batch["labels"]))

    def _log_evaluation(self, prefix: str) -> None:
        if self._evaluated:  # not on a process without the end of the network
            self._rank(*(torch.cat(parts) for parts in zip(*self._evaluated, strict=True)))
            self._evaluated.clear()
        for name, metric in (("loss", self.loss), ("mrr", self.mrr), ("accuracy", self.accuracy)):
            self.log(f"{prefix}/{name}", metric.compute(), prog_bar=name == "loss")
            metric.reset()

    def _rank(self, queries: Tensor, passages: Tensor, numbers: Tensor, labels: Tensor) -> None:
        strategy, size = self.trainer.strategy, numbers.shape[1]
        everyones = gather_rows(strategy, passages), gather_rows(strategy, numbers.flatten())
        first = first_row(strategy, numbers.numel())
        real = torch.nonzero(labels >= 0)[:, 0]
        for rows in real.split(CHUNK):
            places = first + rows * size
            found = self.similarities(queries[rows], *everyones, places)
            own = found.gather(1, places[:, None])
            ranks = 1 + (found > own + TIE / self.temperature).sum(1)
            self.loss.update(cross_entropy(found, places), weight=len(rows))
            self.mrr.update(1 / ranks, weight=len(rows))
            self.accuracy.update((ranks == 1).float(), weight=len(rows))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The cosine of each query with each passage of its group, (batch, group)."""
        queries, passages = self.outputs(batch)
        return torch.einsum("bc,bgc->bg", queries, passages.unflatten(0, batch["passage_numbers"].shape))
