"""Masked sentence pairs, BERT's pretraining data (Devlin et al. 2018, section 3.1)."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from src.data.masking import Masking
from src.data.packing import IGNORED, Key
from src.data.pairs import Pair, SentencePairs
from src.rows import LENGTH_STEP


class _Row(NamedTuple):
    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    next_sentence_label: int


class MaskedPairs(Dataset[dict[str, Tensor]]):
    """Masked pairs ``[CLS] A [SEP] B [SEP]`` by (epoch, index), each a function of the seed and these two alone.

    Index -1 is a row of [CLS] alone, without any target.

    Args:
        pairs: the sentence pairs.
        masking: what is done to them.
        special_ids: the ids of the special tokens, by HuggingFace's names for the tokens.
        seed: none for evaluation, which is the same in every run and epoch.
    """

    def __init__(
        self, pairs: SentencePairs, masking: Masking, special_ids: dict[str, int], seed: int | None = None
    ) -> None:
        self.pairs, self.masking, self.special_ids, self.seed = pairs, masking, special_ids, seed
        self._special = np.array(sorted(special_ids.values()))

    def __len__(self) -> int:
        return len(self.pairs)

    def _draw(self, key: Key) -> tuple[Pair, np.random.Generator]:
        epoch, index = key
        rng = np.random.default_rng([0, 0, index] if self.seed is None else [self.seed, epoch, index])
        return self.pairs.draw(index, rng), rng

    def length(self, key: Key) -> int:
        """Tokens of a row, the three special ones among them."""
        return self._draw(key)[0].length + 3

    def _row(self, key: Key) -> _Row:
        cls, sep = self.special_ids["cls_token"], self.special_ids["sep_token"]
        if key[1] < 0:
            return _Row(np.array([cls]), np.array([IGNORED]), np.array([0]), IGNORED)
        (first, second, is_next), rng = self._draw(key)
        data = self.pairs.data
        ids = np.concatenate([[cls], data.tokens[first], [sep], data.tokens[second], [sep]]).astype(np.int64)
        # a segment may begin within a word, where it was cut: what is left of that word counts as one
        word_starts = np.concatenate([[1], data.word_starts[first], [1], data.word_starts[second], [1]]).astype(bool)
        begin_of_second = first.stop - first.start + 2
        word_starts[[1, begin_of_second]] = True
        masked, labels = self.masking.apply(ids, ~np.isin(ids, self._special), word_starts, rng)
        segments = (np.arange(len(ids)) >= begin_of_second).astype(np.int64)
        return _Row(masked, labels, segments, int(not is_next))

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        return {name: rows[0] for name, rows in self.__getitems__([key]).items()}

    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """A batch.

        Returns:
            ``input_ids``, ``attention_mask``, ``token_type_ids`` and ``labels`` (-100 where nothing is to be
            predicted), (batch, seq) each; ``next_sentence_label`` (batch,), 0 where B follows A and 1 where it does
            not; ``masked_positions`` (batch, most), the positions with a label, filled up with 0, that of [CLS].
        """
        rows = [self._row(key) for key in keys]
        lengths = np.array([len(row.input_ids) for row in rows])
        width = -(-lengths.max() // LENGTH_STEP) * LENGTH_STEP
        batch = {
            "input_ids": np.full((len(rows), width), self.special_ids["pad_token"]),
            "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
            "token_type_ids": np.zeros((len(rows), width), np.int64),
            "labels": np.full((len(rows), width), IGNORED),
            "next_sentence_label": np.array([row.next_sentence_label for row in rows]),
            "masked_positions": np.zeros((len(rows), self.masking.most(width)), np.int64),
        }
        for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            for name in ("input_ids", "token_type_ids", "labels"):
                batch[name][i, :length] = getattr(row, name)
            positions = np.flatnonzero(row.labels != IGNORED)
            batch["masked_positions"][i, : len(positions)] = positions
        return {name: torch.from_numpy(rows) for name, rows in batch.items()}
