"""Retrieval by vectors: queries near the passages that answer them, far from all others."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from src.extras.retrieval.bi_encoder import BiEncoder
from src.extras.retrieval.data import RetrieverDataModule
from src.extras.retrieval.gather import first_row, gather_rows
from src.models import BERTConfig
from src.tasks.base import Batch, Charts, Task
from src.tasks.bert import EncoderTask

CHUNK = 512  # queries of an evaluation that are compared with all passages at once
TIE = 1e-6  # cosines that differ by less are those of equal texts, but for rounding: neither is before the other
Vectors = tuple[Tensor, Tensor]  # of queries (rows, d_model) and of passages (rows x group, d_model)


class RetrieverModule(EncoderTask):
    """Train one encoder for queries and passages: each query must find its passage among all of the batch.

    The passages of the other queries, on all ranks, and the group's own negatives are what it is told from (Karpukhin
    et al. 2020, section 3.2); the loss is the cross-entropy of the cosines. Two ranks with batches of B train as one
    with a batch of 2B. Accumulated batches are compared each within itself.

    Logs over the whole validation and test splits, each query against all passages of the split: loss, the mean
    reciprocal rank (MRR) of its own, and how often that is the first.

    Its ``pretrained`` may be a pretrained BERT, whose encoder is taken over, or a retriever.

    Args:
        config: shape of the network; the vocabulary size comes from the data.
        temperature: divides the cosines.
    """

    architecture = "bi_encoder"
    data_class = RetrieverDataModule
    in_batch_negatives = True
    charts: ClassVar[Charts] = {**Task.charts, "Quality": {"Rank of the passage": ["val/mrr", "val/accuracy"]}}
    model: BiEncoder

    def __init__(self, config: BERTConfig, temperature: float = 0.05, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}: it must be above 0")
        self.temperature = temperature
        self.loss, self.mrr, self.accuracy = MeanMetric(), MeanMetric(), MeanMetric()
        self._evaluated: list[tuple[Tensor, ...]] = []

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        queries = {name: batch[name] for name in ("query_input_ids", "query_attention_mask")}
        return queries | {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}

    def count_tokens(self, batch: Batch) -> Tensor:
        return batch["query_attention_mask"].sum() + batch["attention_mask"].sum()

    def targets(self, batch: Batch) -> dict[str, Any]:
        """None: the loss compares the vectors of all rows."""
        return {}

    def summed_losses(self, outputs: Vectors, batch: Batch) -> dict[str, Tensor]:
        """Sum the cross-entropies, in nats, of the queries of this process."""
        queries, passages = outputs
        strategy, numbers = self.trainer.strategy, batch["passage_numbers"]
        everyones = gather_rows(strategy, passages), gather_rows(strategy, numbers.flatten())
        first = first_row(strategy, numbers.numel())
        places = first + torch.arange(len(queries), device=queries.device) * numbers.shape[1]
        targets = places.masked_fill(batch["labels"] < 0, -100)
        similarities = self.similarities(queries, *everyones, places)
        return {"loss": cross_entropy(similarities, targets, reduction="sum")}

    def similarities(self, queries: Tensor, passages: Tensor, numbers: Tensor, places: Tensor) -> Tensor:
        """Divide cosines by the temperature, (queries, passages), -inf where a passage is no negative of a query.

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

    def update_metrics(self, outputs: Vectors, batch: Batch) -> None:
        self._evaluated.append((*outputs, batch["passage_numbers"], batch["labels"]))

    def log_metrics(self, split: str, prefix: str) -> None:
        if self._evaluated:  # not on a process without the end of the network
            self._rank(*(torch.cat(parts) for parts in zip(*self._evaluated, strict=True)))
            self._evaluated.clear()
        self.log_means(prefix, "loss", "mrr", "accuracy")

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

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the cosine of each query with each passage of its group, (batch, group)."""
        queries, passages = self.outputs(batch)
        return torch.einsum("bc,bgc->bg", queries, passages.unflatten(0, batch["passage_numbers"].shape))
