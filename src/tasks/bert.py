"""BERT's pretraining: predict masked words, and whether a segment follows another."""

import math
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from src.architectures import architectures
from src.checkpoint import check_compatible
from src.data import Baselines, MLMDataModule, TextDataModule
from src.data.baselines import majority_accuracy, mean_losses, note
from src.errors import InputError
from src.models import BERT, BERTConfig, BERTEncoder, Longformer, LongformerConfig
from src.models.bert import BERTOutput
from src.models.network import Network
from src.tasks.base import Batch, Charts, Task, update_mean


class BERTModule(Task):
    """Pretrain a BERT: the loss is the masked words' cross-entropy and the next sentences', summed.

    Logs each of the two and the fraction of padding; over the whole validation and test splits also the perplexity and
    accuracy of the masked words, at the masked positions alone, and the accuracy of the next sentences.
    """

    architecture = "bert"
    data_class = MLMDataModule
    objectives: tuple[str, ...] = ("mlm", "nsp")
    averaged_over: ClassVar[dict[str, str]] = {"mlm_loss": "target_tokens", "nsp_loss": "target_pairs"}
    charts: ClassVar[Charts] = {
        "Loss": {
            **Task.charts["Loss"],
            "Masked words": ["train/mlm_loss", "val/mlm_loss"],
            "Next sentences": ["train/nsp_loss", "val/nsp_loss"],
        },
        "Quality": {
            "Accuracy": ["val/mlm_accuracy", "val/nsp_accuracy"],
            "Perplexity of masked words": ["val/mlm_perplexity"],
        },
        "Data": {"Fraction of padding": ["train/padding_share"]},
    }
    model: BERT | Longformer

    def __init__(self, config: BERTConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.mlm_loss, self.nsp_loss = MeanMetric(), MeanMetric()
        self.nsp_accuracy = MulticlassAccuracy(2, average="micro", ignore_index=-100)

    def check_data(self, data: TextDataModule) -> None:
        super().check_data(data)
        if "nsp" in self.objectives and not getattr(data, "next_sentence", True):
            raise InputError(
                "a BERTModule predicts next sentences too: set data.next_sentence to true, or train an MLMModule"
            )

    def setup(self, stage: str) -> None:
        """Make the metric whose size is the vocabulary's."""
        super().setup(stage)
        self.mlm_accuracy = MulticlassAccuracy(self.config.vocab_size, average="micro", ignore_index=-100)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        kept_apart = "document_starts" if "document_starts" in batch else "attention_mask"
        return {name: batch[name] for name in ("input_ids", "token_type_ids", kept_apart, "masked_positions")}

    def targets(self, batch: Batch) -> dict[str, Any]:
        return {"labels": masked_labels(batch)}

    def summed_losses(self, outputs: BERTOutput, batch: Batch) -> dict[str, Tensor]:
        losses = {"mlm_loss": outputs.masked_words}
        if "nsp" in self.objectives and outputs.next_sentence is not None:
            losses["nsp_loss"] = _nats(outputs.next_sentence, batch["next_sentence_label"])
        return losses

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.collect("padding_share", 1 - batch["attention_mask"].float().mean(), share=False)
        return super().training_step(batch, batch_idx)

    def baselines(self) -> Baselines:
        """Guess words uniformly and by unigrams, in the mean over all masks; next sentences by coin and majority."""
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

    def update_metrics(self, outputs: BERTOutput, batch: Batch) -> None:
        predictions = {"mlm": (outputs.masked_words, masked_labels(batch))}
        if "nsp" in self.objectives and outputs.next_sentence is not None:
            predictions["nsp"] = (outputs.next_sentence, batch["next_sentence_label"])
        for name, (logits, labels) in predictions.items():
            update_mean(getattr(self, f"{name}_loss"), _nats(logits, labels), (labels != -100).sum())
            getattr(self, f"{name}_accuracy").update(logits.argmax(-1), labels)

    def log_metrics(self, split: str, prefix: str) -> None:
        losses = {name: getattr(self, f"{name}_loss").compute() for name in self.objectives}
        self.log(f"{prefix}/loss", torch.stack(list(losses.values())).sum(), prog_bar=True)
        self.log(f"{prefix}/mlm_perplexity", torch.exp(losses["mlm"]))
        self.log_means(prefix, *(f"{name}_{what}" for name in self.objectives for what in ("loss", "accuracy")))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Find the most likely word at each masked position, (batch, most)."""
        return self.outputs(batch).masked_words.argmax(-1)


class MLMModule(BERTModule):
    """Pretrain a BERT on masked words alone, as RoBERTa (Liu et al. 2019) and ModernBERT (Warner et al. 2024).

    The pooler and the head for next sentences stay as they are, and a checkpoint says so.
    """

    objectives = ("mlm",)
    averaged_over: ClassVar[dict[str, str]] = {"mlm_loss": "target_tokens"}
    charts: ClassVar[Charts] = {
        **BERTModule.charts,
        "Loss": {name: chart for name, chart in BERTModule.charts["Loss"].items() if name != "Next sentences"},
        "Quality": {"Accuracy": ["val/mlm_accuracy"], "Perplexity of masked words": ["val/mlm_perplexity"]},
    }
    untrained: tuple[str, ...] = ("encoder.pooler", "next_sentence")

    def __init__(self, config: BERTConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.freeze_patterns = [*self.freeze_patterns, *(f"{part}.*" for part in self.untrained)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.untrained:
            checkpoint["untrained"] = list(self.untrained)


class LongformerModule(MLMModule):
    """Pretrain a Longformer: as :class:`MLMModule`.

    Its ``pretrained`` may be what `extend-context` makes of a BERT.
    """

    architecture = "longformer"
    untrained = ()
    model: Longformer

    def __init__(self, config: LongformerConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)

    def check_data(self, data: TextDataModule) -> None:
        super().check_data(data)
        if getattr(data, "unpadded", False):
            raise InputError(
                "a Longformer has global tokens, which its rows must each begin with: set data.unpadded to false"
            )


def _nats(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum the cross-entropies."""
    return cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")


def masked_labels(batch: Batch) -> Tensor:
    """Gather the labels at ``masked_positions``, (batch, most). Unused ones are [CLS], whose label is always -100."""
    return batch["labels"].gather(1, batch["masked_positions"])


class EncoderTask(Task):
    """A task that may start from the encoder of another one's checkpoint.

    Its ``pretrained`` may be that of a pretrained BERT or a retriever, whose encoder is taken over, or of its own kind.
    """

    def check_pretrained(self, checkpoint: dict[str, Any], data: TextDataModule) -> None:
        held = checkpoint["architecture"]
        if held == self.architecture:
            super().check_pretrained(checkpoint, data)
            return
        shape = {field.name: getattr(self.config, field.name) for field in fields(BERTConfig)}
        has_encoder = architectures()[held].encoder is BERTEncoder
        check_compatible(checkpoint, held if has_encoder else "bert", shape, data.tokenizer.to_str())

    def load_pretrained(self, model: Network, checkpoint: dict[str, Any]) -> None:
        """Take over all weights, or the encoder; that of a retriever has no pooler, if one is needed."""
        if checkpoint["architecture"] == self.architecture:
            super().load_pretrained(model, checkpoint)
            return
        self.check_pretrained(checkpoint, self.data)
        encoder, weights = model.get_submodule("encoder"), checkpoint["state_dict"]
        found = {name: weights.get(f"model.encoder.{name}", first) for name, first in encoder.state_dict().items()}
        encoder.load_state_dict(found)
