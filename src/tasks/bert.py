"""BERT's pretraining: predict masked words, and whether a segment follows another."""

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from src.data import ClassificationDataModule, MLMDataModule, TextDataModule
from src.errors import InputError
from src.models import BERT, BERTConfig
from src.models.bert import BERTOutput
from src.optim import Schedule
from src.tasks.base import Batch, Task


class BERTModule(Task):
    """Pretrain a BERT: the loss is the masked words' cross-entropy and the next sentences', summed.

    Logs each of the two and the share of padding; over the whole validation and test splits also the perplexity and
    accuracy of the masked words, at the masked positions alone, and the accuracy of the next sentences.

    Args:
        config: shape of the network; the vocabulary size comes from the data.
        optimizer: class and arguments of the optimizer; ``lr`` is the peak of the schedule.
        schedule: of the learning rate.
        pretrained: a checkpoint of such a network, whose weights training starts from; from scratch if null.
        compile: whether to compile each block with ``torch.compile``.
        activation_checkpointing: whether to compute blocks anew for their backward pass, to save memory.
    """

    architecture = "bert"
    model: BERT

    def __init__(
        self,
        config: BERTConfig,
        optimizer: OptimizerCallable,
        schedule: Schedule,
        pretrained: str | None = None,
        compile: bool = False,  # noqa: A002
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(config, optimizer, schedule, compile, activation_checkpointing)
        self.pretrained = pretrained
        self.mlm_loss, self.nsp_loss = MeanMetric(), MeanMetric()
        self.mlm_accuracy = MulticlassAccuracy(config.vocab_size, average="micro", ignore_index=-100)
        self.nsp_accuracy = MulticlassAccuracy(2, average="micro", ignore_index=-100)

    def check_data(self, data: TextDataModule) -> None:
        check_lengths(self, data, MLMDataModule)

    def build_model(self) -> BERT:
        return BERT(self.config)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        names = ("input_ids", "token_type_ids", "attention_mask", "masked_positions")
        return {name: batch[name] for name in names}

    def count_tokens(self, batch: Batch) -> Tensor:
        """The real tokens of a batch: padding is no work done."""
        return batch["attention_mask"].sum()

    def summed_losses(self, outputs: BERTOutput, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy in nats, summed over the masked words, and over the pairs."""
        words = cross_entropy(outputs.masked_words.flatten(0, 1), masked_labels(batch).flatten(), reduction="sum")
        pairs = cross_entropy(outputs.next_sentence, batch["next_sentence_label"], reduction="sum")
        return words, pairs

    def loss_parts(self, outputs: BERTOutput, batch: Batch) -> dict[str, Tensor]:
        """The mean over masked words and the mean over pairs, each exact over the optimizer step."""
        words, pairs = self.summed_losses(outputs, batch)
        return {"mlm_loss": words / batch["target_tokens"], "nsp_loss": pairs / batch["target_pairs"]}

    def summed_loss(self, outputs: BERTOutput, batch: Batch) -> Tensor:
        """Both parts, as a sum over masked words: the pairs count as many times as makes their mean a term of it."""
        return torch.stack(list(self.loss_parts(outputs, batch).values())).sum() * batch["target_tokens"]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.collect("padding_share", 1 - batch["attention_mask"].float().mean())
        return super().training_step(batch, batch_idx)

    def _metrics(self) -> dict[str, Metric]:
        return {
            "mlm_loss": self.mlm_loss,
            "mlm_accuracy": self.mlm_accuracy,
            "nsp_loss": self.nsp_loss,
            "nsp_accuracy": self.nsp_accuracy,
        }

    def _evaluate(self, batch: Batch) -> None:
        outputs, labels, following = self.outputs(batch), masked_labels(batch), batch["next_sentence_label"]
        if outputs is None:
            return
        words, pairs = self.summed_losses(outputs, batch)
        n_words, n_pairs = (labels != -100).sum(), (following != -100).sum()
        # a batch may be all padding, where the ranks have unequal shares of the split
        self.mlm_loss.update(words / n_words.clamp(min=1), weight=n_words)
        self.nsp_loss.update(pairs / n_pairs.clamp(min=1), weight=n_pairs)
        self.mlm_accuracy.update(outputs.masked_words.argmax(-1), labels)
        self.nsp_accuracy.update(outputs.next_sentence.argmax(-1), following)

    def _log_evaluation(self, prefix: str) -> None:
        figures = {name: metric.compute() for name, metric in self._metrics().items()}
        for metric in self._metrics().values():
            metric.reset()
        self.log(f"{prefix}/loss", figures["mlm_loss"] + figures["nsp_loss"], prog_bar=True)
        self.log(f"{prefix}/mlm_perplexity", torch.exp(figures["mlm_loss"]))
        self.log_dict({f"{prefix}/{name}": figure for name, figure in figures.items()})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The most likely word at each masked position, (batch, most)."""
        return self.outputs(batch).masked_words.argmax(-1)


def masked_labels(batch: Batch) -> Tensor:
    """The labels at ``masked_positions``, (batch, most). Unused places point at [CLS], whose label is always -100."""
    return batch["labels"].gather(1, batch["masked_positions"])


def check_lengths(task: Task, data: TextDataModule, kind: type[MLMDataModule | ClassificationDataModule]) -> None:
    """Refuse data of another kind, and rows that are longer than the network has positions.

    Raises:
        InputError: naming both.
    """
    if not isinstance(data, kind):
        name = type(task).__name__
        raise InputError(f"{name} trains on an {kind.__name__}, not on an {type(data).__name__}: change data")
    positions = task.config.max_seq_len
    if data.seq_len > positions:
        raise InputError(f"data.seq_len {data.seq_len} is more than the model's max_seq_len {positions}: change one")
