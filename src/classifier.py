"""Texts to the probabilities of labels, by a trained classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer
from torch import Tensor

from src.checkpoint import load_writer
from src.errors import InputError
from src.models import BERTClassifier
from src.tokenization import bert_row, pad_pairs
from src.trained_bert import TrainedBERT

Row = tuple[list[int], int]  # the ids of one or two texts, and where the second one begins


class Classifier(TrainedBERT[BERTClassifier]):
    """A network that chooses a label for a text, or for a pair of texts.

    Args:
        model: as the next ones, see :class:`TrainedBERT`.
        label_names: in the order of the logits.
        takes_pairs: whether it was trained on pairs of texts.
    """

    def __init__(
        self, model: BERTClassifier, tokenizer: Tokenizer, device: str, label_names: list[str], takes_pairs: bool
    ) -> None:
        super().__init__(model, tokenizer, device)
        self.label_names, self.takes_pairs = label_names, takes_pairs

    @property
    def max_tokens(self) -> int:
        """Of a row, the special ones among them."""
        return self.model.config.max_seq_len

    def rows(self, texts: Sequence[Sequence[str]]) -> tuple[list[Row], int]:
        """Make ``[CLS] text [SEP]``, or that of a pair, of each; cut to the positions, and how many were cut."""
        columns = [
            self.tokenizer.encode_batch(list(column), add_special_tokens=False) for column in zip(*texts, strict=True)
        ]
        encoded = [[encoding.ids for encoding in parts] for parts in zip(*columns, strict=True)]
        room = self.max_tokens - 1 - len(columns)
        cut = sum(sum(map(len, parts)) > room for parts in encoded)
        return [bert_row(parts, self.max_tokens, self.special_ids) for parts in encoded], cut

    @torch.inference_mode()
    def probabilities(self, rows: Sequence[Row]) -> Tensor:
        """Compute the probability of each label for each row, as one batch: (rows, labels), on the CPU."""
        arrays = pad_pairs(rows, self.special_ids["pad_token"], self.max_tokens)
        logits = self.model(**{name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()})
        return torch.softmax(logits.float(), -1).cpu()


def classifier_of(content: dict[str, Any], path: str | Path, device: str = "cpu") -> Classifier:
    """Make the classifier of a checkpoint; ``path`` names it in errors."""
    model, tokenizer, _ = load_writer(content, path, "classify")
    n_labels = model.config.n_labels
    if n_labels < 2:
        raise InputError(
            f"checkpoint {path} has {n_labels} label, the score of a reranker: a classifier has two or more"
        )
    names = content.get("label_names") or [f"LABEL_{i}" for i in range(n_labels)]  # as HuggingFace calls them
    data = (yaml.safe_load(content["config"]).get("data") or {}).get("init_args") or {}
    takes_pairs = data.get("second_text_column") is not None
    return Classifier(model, tokenizer, device, names, takes_pairs)
