"""A cross-encoder that scores how well a passage answers a query."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from src.checkpoint import load_trained
from src.errors import InputError
from src.hardware import to_device
from src.models import BERTClassifier
from src.tokenization import bert_ids, bert_row, pad_rows

BATCH = 32  # pairs that are read at once


@dataclass(frozen=True)
class Reranker:
    """A BERT with one score, over ``[CLS] query [SEP] passage [SEP]``.

    Args:
        model: in evaluation mode, with one label.
        tokenizer: its own.
        special_ids: the ids of BERT's special tokens.
        device: where the network is.
    """

    model: BERTClassifier
    tokenizer: Tokenizer
    special_ids: dict[str, int]
    device: torch.device

    @torch.inference_mode()
    def scores(self, query: str, passages: Sequence[str]) -> list[float]:
        """The score of each passage. What is longer than the network's positions is cut, the longer text first."""
        first = self.tokenizer.encode(query, add_special_tokens=False).ids
        encodings = self.tokenizer.encode_batch(list(passages), add_special_tokens=False)
        length = self.model.config.max_seq_len
        pairs = [bert_row([first, encoding.ids], length, self.special_ids) for encoding in encodings]
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))  # rows of like length go together
        found = [0.0] * len(pairs)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            arrays = pad_rows([pairs[i][0] for i in batch], self.special_ids["pad_token"])
            input_ids, mask = (torch.from_numpy(array).to(self.device) for array in arrays)
            begins = torch.tensor([pairs[i][1] for i in batch], device=self.device)[:, None]
            segments = ((torch.arange(input_ids.shape[1], device=self.device) >= begins) & (mask > 0)).long()
            for i, score in zip(batch, self.model(input_ids, segments, mask)[:, 0].float().tolist(), strict=True):
                found[i] = score
        return found


def load_reranker(path: str | Path, device: str = "cpu") -> Reranker:
    """The reranker of a checkpoint.

    Raises:
        InputError: it cannot be read, is no classifier, or has several labels.
    """
    model, tokenizer, _ = load_trained(path, BERTClassifier)
    if model.config.n_labels != 1:
        raise InputError(f"checkpoint {path} has {model.config.n_labels} labels: a reranker has one, its score")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return Reranker(model, tokenizer, bert_ids(tokenizer), to_device(model, device))
