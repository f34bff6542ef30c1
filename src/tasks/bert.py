"""BERT's pretraining: predict masked words, and whether a segment follows another."""

import math
from dataclasses import fields
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from src.checkpoint import check_compatible
from src.data import Baselines, MLMDataModule, TextDataModule
from src.data.baselines import majority_accuracy, mean_losses, note
from src.errors import InputError
from src.models import BERT, BERTConfig, BERTEncoder, Longformer
from src.models.bert import BERTOutput
from src.optim import Schedule
from src.tasks.base import Batch, Task

# objective -> what a batch counts its targets by
COUNTS = {"mlm": "target_tokens", "nsp": "target_pairs"}


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
    objectives: tuple[str, ...] = ("mlm", "nsp")
    model: BERT | Longformer

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
        if "nsp" in self.objectives and not getattr(data, "next_sentence", True):
            raise InputError("a BERTModule predicts next sentences too: set data.next_sentence to true")

    def build_model(self) -> BERT | Longformer:
        return BERT(self.config)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        names = ("input_ids", "token_type_ids", "attention_mask", "masked_positions")
        return {name: batch[name] for name in names}

    def count_tokens(self, batch: Batch) -> Tensor:
        """The real tokens of a batch: padding is no work done."""
        return batch["attention_mask"].sum()

    def predictions(self, outputs: BERTOutput, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """By objective: logits (..., classes) and labels (...), -100 where nothing is predicted."""
        found = {"mlm": (outputs.masked_words, masked_labels(batch))}
        if outputs.next_sentence is not None:
            found["nsp"] = (outputs.next_sentence, batch["next_sentence_label"])
        return found

    def loss_parts(self, outputs: BERTOutput, batch: Batch) -> dict[str, Tensor]:
        """The mean over masked words, and the mean over pairs, each exact over the optimizer step."""
        predictions = self.predictions(outputs, batch).items()
        return {f"{name}_loss": _nats(*found) / batch[COUNTS[name]] for name, found in predictions}

    def summed_loss(self, outputs: BERTOutput, batch: Batch) -> Tensor:
        """All parts, as a sum over masked words: the pairs count as many times as makes their mean a term of it."""
        return torch.stack(list(self.loss_parts(outputs, batch).values())).sum() * batch["target_tokens"]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.collect("padding_share", 1 - batch["attention_mask"].float().mean(), share=False)
        return super().training_step(batch, batch_idx)

    def baselines(self) -> Baselines:
        """Uniform and unigram for words, in the mean over all masks; for next sentences a coin, and the majority."""
        data = self.data
        assert isinstance(data, MLMDataModule)
        train, validation = data.targets("train"), data.targets("validation")
        extents = [train.extent, validation.extent]
        accuracies = {"uniform": 1 / data.vocab_size, "unigram": majority_accuracy(train, validation)}
        coin = {"nsp_loss": math.log(2)} if "nsp" in self.objectives else {}
        figures = {}
        for model, loss in mean_losses(train, validation, data.vocab_size).items():
            words = {"mlm_loss": loss, "mlm_perplexity": math.exp(loss), "mlm_accuracy": accuracies[model]}
            figures[model] = {"loss": loss + sum(coin.values()), **words, **coin}
        if "nsp" in self.objectives:
            labels = data.next_sentence_targets("validation")
            figures["majority"] = {"nsp_accuracy": majority_accuracy(labels, labels)}
            extents.append(labels.extent)
        return Baselines(figures, note(*extents))

    def _metrics(self) -> dict[str, Metric]:
        names = [f"{objective}_{what}" for objective in self.objectives for what in ("loss", "accuracy")]
        return {name: getattr(self, name) for name in names}

    def _evaluate(self, batch: Batch) -> None:
        outputs = self.outputs(batch)
        if outputs is None:
            return
        for name, (logits, labels) in self.predictions(outputs, batch).items():
            targets = (labels != -100).sum()
            # a batch may be all padding, where the ranks have unequal shares of the split
            loss = _nats(logits, labels) / targets.clamp(min=1)
            self._metrics()[f"{name}_loss"].update(loss, weight=targets)
            self._metrics()[f"{name}_accuracy"].update(logits.argmax(-1), labels)

    def _log_evaluation(self, prefix: str) -> None:
        figures = {name: metric.compute() for name, metric in self._metrics().items()}
        for metric in self._metrics().values():
            metric.reset()
        losses = [figure for name, figure in figures.items() if name.endswith("_loss")]
        self.log(f"{prefix}/loss", torch.stack(losses).sum(), prog_bar=True)
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


def _nats(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, summed."""
    return cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")


def masked_labels(batch: Batch) -> Tensor:
    """The labels at ``masked_positions``, (batch, most). Unused places point at [CLS], whose label is always -100."""
    return batch["labels"].gather(1, batch["masked_positions"])


def check_encoder(checkpoint: dict[str, Any], config: BERTConfig, data: TextDataModule) -> None:
    """Refuse a checkpoint whose encoder cannot be taken over: that of a BERT or of a retriever can.

    Raises:
        InputError: it is of another architecture, shape or tokenizer.
    """
    shape = {field.name: getattr(config, field.name) for field in fields(BERTConfig)}
    held = checkpoint["architecture"]
    check_compatible(checkpoint, held if held == "bi_encoder" else "bert", shape, data.tokenizer.to_str())


def load_encoder(encoder: BERTEncoder, checkpoint: dict[str, Any]) -> None:
    """Take over the encoder of a checkpoint; that of a retriever has no pooler, if one is needed."""
    prefix, weights = "model.encoder.", checkpoint["state_dict"]
    found = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    encoder.load_state_dict({name: found.get(name, first) for name, first in encoder.state_dict().items()})


def check_lengths(task: Task, data: TextDataModule, kind: type[TextDataModule]) -> None:
    """Refuse data of another kind, and rows that are longer than the network has positions.

    Raises:
        InputError: naming both.
    """
    if not isinstance(data, kind):
        name = type(task).__name__
        raise InputError(f"{name} trains on an {kind.__name__}, not on an {type(data).__name__}: change data")
    positions, seq_len = task.config.max_seq_len, vars(data)["seq_len"]
    if seq_len > positions:
        raise InputError(f"data.seq_len {seq_len} is more than the model's max_seq_len {positions}: change one")
