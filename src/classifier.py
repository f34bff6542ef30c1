"""Texts to the probabilities of labels, by a trained classifier."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer
from torch import Tensor

from src.checkpoint import load_writer
from src.errors import InputError
from src.hardware import to_device
from src.models import BERTClassifier
from src.tokenization import bert_ids, bert_row, pad_pairs

Row = tuple[list[int], int]  # the ids of one or two texts, and where the second one begins


@dataclass(frozen=True)
class Classifier:
    """A network that chooses a label for a text, or for a pair of texts.

    Args:
        model: in evaluation mode.
        tokenizer: its own.
        special_ids: the ids of BERT's special tokens.
        label_names: in the order of the logits.
        takes_pairs: whether it was trained on pairs of texts.
        device: where the network is.
    """

    model: BERTClassifier
    tokenizer: Tokenizer
    special_ids: dict[str, int]
    label_names: list[str]
    takes_pairs: bool
    device: torch.device

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
        arrays = pad_pairs(rows, self.special_ids["pad_token"])
        # the padding to a multiple of 8 may go beyond the last position
        batch = {name: torch.from_numpy(array[:, : self.max_tokens]) for name, array in arrays.items()}
        logits = self.model(**{name: tensor.to(self.device) for name, tensor in batch.items()})
        return torch.softmax(logits.float(), -1).cpu()


def classifier_of(content: dict[str, Any], path: str | Path, device: str = "cpu") -> Classifier:
    """Make the classifier of a checkpoint; ``path`` names it in errors."""
    model, tokenizer, _ = load_writer(content, path, "classify")
    n_labels = model.config.n_labels
    if n_labels < 2:
        raise InputError(
            f"checkpoint {path} has {n_labels} label, the score of a reranker: a classifier has two or more"
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    names = content.get("label_names") or [f"LABEL_{i}" for i in range(n_labels)]  # as HuggingFace calls them
    data = (yaml.safe_load(content["config"]).get("data") or {}).get("init_args") or {}
    takes_pairs = data.get("second_text_column") is not None
    return Classifier(model, tokenizer, bert_ids(tokenizer), names, takes_pairs, to_device(model, device))


def prediction_row(
    texts: Sequence[str], label_names: Sequence[str], probabilities: Iterable[float], true_label: str | None = None
) -> Mapping[str, str | float]:
    """Make the row of a table of predictions: the text or pair, its likeliest label, and the probability of each.

    Args:
        texts: one or two.
        label_names: in the order of the probabilities.
        probabilities: of the labels.
        true_label: where it is known.
    """
    given = dict(zip(("text", "second_text"), texts, strict=False))
    known = {} if true_label is None else {"true_label": true_label}
    by_name = {name: round(p, 6) for name, p in zip(label_names, probabilities, strict=True)}
    label = max(by_name, key=by_name.__getitem__)
    return {**given, **known, "label": label, **{f"probability_{name}": p for name, p in by_name.items()}}
