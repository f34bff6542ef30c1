"""The LightningModules of retrieval: a retriever by vectors, and a reranker of what is found."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import Strategy
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from src.distributed import data_parallel_group
from src.extras.retrieval.bi_encoder import BiEncoder
from src.extras.retrieval.data import RerankerDataModule, RetrieverDataModule
from src.models import BERTClassifier, BERTClassifierConfig, BERTConfig
from src.tasks.base import Batch, Charts, Task, update_mean
from src.tasks.bert import EncoderTask

CHUNK = 512  # queries of an evaluation that are compared with all passages at once
TIE = 1e-6  # cosines that differ by less are those of equal texts, but for rounding: neither is before the other
Outputs = tuple[Tensor, Tensor]  # of queries (rows, d_model) and of passages (rows x group, d_model)


class RankingTask(EncoderTask):
    """A network that orders the passages of a query.

    Logs over the whole validation and test splits: loss, the mean reciprocal rank (MRR) of a query's own passage, and
    how often that is the first.
    """

    charts: ClassVar[Charts] = {**Task.charts, "Quality": {"Rank of the passage": ["val/mrr", "val/accuracy"]}}

    def __init__(self, config: BERTConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.loss, self.mrr, self.accuracy = MeanMetric(), MeanMetric(), MeanMetric()

    def targets(self, batch: Batch) -> dict[str, Any]:
        """None: the loss compares the passages with each other."""
        return {}

    def log_metrics(self, split: str, prefix: str) -> None:
        self.log_means(prefix, "loss", "mrr", "accuracy")


class RetrieverModule(RankingTask):
    """Train one encoder for queries and passages: each query must find its passage among all of the batch.

    The passages of the other queries, on all ranks, and the group's own negatives are what it is told from (Karpukhin
    et al. 2020, section 3.2); the loss is the cross-entropy of the cosines. Two ranks with batches of B train as one
    with a batch of 2B. Accumulated batches are compared each within itself.

    In validation and test each query is compared with all passages of the split.

    Its ``pretrained`` may be a pretrained BERT, whose encoder is taken over, or a retriever.

    Args:
        config: shape of the network; the vocabulary size comes from the data.
        temperature: divides the cosines.
    """

    architecture = "bi_encoder"
    data_class = RetrieverDataModule
    in_batch_negatives = True
    model: BiEncoder

    def __init__(self, config: BERTConfig, temperature: float = 0.05, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}: it must be above 0")
        self.temperature = temperature
        self._evaluated: list[tuple[Tensor, ...]] = []

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        queries = {name: batch[name] for name in ("query_input_ids", "query_attention_mask")}
        return queries | {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}

    def count_tokens(self, batch: Batch) -> Tensor:
        return batch["query_attention_mask"].sum() + batch["attention_mask"].sum()

    def summed_losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Sum the cross-entropies, in nats, of the queries of this process."""
        queries, passages = outputs
        strategy, numbers = self.trainer.strategy, batch["passage_numbers"]
        everyones = gather_rows(strategy, passages), gather_rows(strategy, numbers.flatten())
        first = first_row(strategy, numbers.numel())
        positions = first + torch.arange(len(queries), device=queries.device) * numbers.shape[1]
        targets = positions.masked_fill(batch["labels"] < 0, -100)
        similarities = self.similarities(queries, *everyones, positions)
        return {"loss": cross_entropy(similarities, targets, reduction="sum")}

    def similarities(self, queries: Tensor, passages: Tensor, numbers: Tensor, positions: Tensor) -> Tensor:
        """Divide cosines by the temperature, (queries, passages), -inf where a passage is no negative of a query.

        Args:
            queries: (queries, d_model).
            passages: (passages, d_model).
            numbers: (passages,), which passage each is; below 0 is none.
            positions: (queries,), of each query's own passage, which is no negative where it is met again.
        """
        with torch.autocast(queries.device.type, enabled=False):  # the cosines of near passages differ by little
            found = queries.float() @ passages.float().T / self.temperature
        again = numbers == numbers[positions][:, None]
        again[torch.arange(len(positions), device=positions.device), positions] = False
        return found.masked_fill(again | (numbers < 0), -torch.inf)

    # ---- evaluation

    def update_metrics(self, outputs: Outputs, batch: Batch) -> None:
        self._evaluated.append((*outputs, batch["passage_numbers"], batch["labels"]))

    def log_metrics(self, split: str, prefix: str) -> None:
        if self._evaluated:  # not on a process without the end of the network
            self._rank(*(torch.cat(parts) for parts in zip(*self._evaluated, strict=True)))
            self._evaluated.clear()
        super().log_metrics(split, prefix)

    def _rank(self, queries: Tensor, passages: Tensor, numbers: Tensor, labels: Tensor) -> None:
        strategy, size = self.trainer.strategy, numbers.shape[1]
        everyones = gather_rows(strategy, passages), gather_rows(strategy, numbers.flatten())
        first = first_row(strategy, numbers.numel())
        real = torch.nonzero(labels >= 0)[:, 0]
        for rows in real.split(CHUNK):
            positions = first + rows * size
            found = self.similarities(queries[rows], *everyones, positions)
            own = found.gather(1, positions[:, None])
            ranks = 1 + (found > own + TIE / self.temperature).sum(1)
            self.loss.update(cross_entropy(found, positions), weight=len(rows))
            self.mrr.update(1 / ranks, weight=len(rows))
            self.accuracy.update((ranks == 1).float(), weight=len(rows))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the cosine of each query with each passage of its group, (batch, group)."""
        queries, passages = self.outputs(batch)
        return torch.einsum("bc,bgc->bg", queries, passages.unflatten(0, batch["passage_numbers"].shape))


class RerankerModule(RankingTask):
    """Train a cross-encoder: a BERT with one label, the score of ``[CLS] query [SEP] passage [SEP]``.

    The loss is the cross-entropy of a query's own passage among those of its group, whose others are the passages that
    a first search mistakes for it (Gao et al. 2021; the network is that of Nogueira and Cho 2019).

    Its ``pretrained`` may be a pretrained BERT or a retriever, whose encoder is taken over, or a reranker.

    Args:
        config: shape of the network; that of the pretrained one. The vocabulary size comes from the data.
        frozen_layers: blocks, from the lowest on, that stay as they were pretrained, and the embeddings with them: a
            step takes less time and memory.
    """

    architecture = "bert_classifier"
    data_class = RerankerDataModule
    model: BERTClassifier

    def __init__(self, config: BERTClassifierConfig, frozen_layers: int = 0, **kwargs: Any) -> None:
        super().__init__(replace(config, n_labels=1), **kwargs)
        if not 0 <= frozen_layers <= config.n_layers:
            raise ValueError(f"frozen_layers is {frozen_layers}: the network has {config.n_layers} layers")
        self.frozen_layers = frozen_layers

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

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the score of each passage of each query, (batch, group)."""
        return self.scores(self.outputs(batch), batch)


# ---- rows of all processes


class _Gather(torch.autograd.Function):
    """Every process uses the rows of all, so that a row's gradient is the sum of what each of them has for it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Any) -> Tensor:
        ctx.group, ctx.size = group, len(rows)
        found = [torch.empty_like(rows) for _ in range(dist.get_world_size(group))]
        dist.all_gather(found, rows.contiguous(), group=group)
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        summed = gradients[0].contiguous()
        dist.all_reduce(summed, group=ctx.group)
        start = dist.get_rank(ctx.group) * ctx.size
        return summed[start : start + ctx.size], None


def gather_rows(strategy: Strategy, rows: Tensor) -> Tensor:
    """Gather the rows of all processes that have rows of their own, in the order of their ranks.

    With a loss that is averaged over the processes, the gradient is that of one process with all rows.

    Args:
        strategy: of the run.
        rows: (n, ...), as many on each process.
    """
    group = data_parallel_group(strategy)
    return rows if group is None or dist.get_world_size(group) == 1 else _Gather.apply(rows, group)


def first_row(strategy: Strategy, n: int) -> int:
    """Find where the rows of this process, ``n`` of them, begin among those of all."""
    group = data_parallel_group(strategy)
    return 0 if group is None else dist.get_rank(group) * n
