"""What rows with masked words share: drawing by key, and padding to a batch."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from src.data.masking import Masking
from src.data.packing import IGNORED, Key
from src.tokenization import LENGTH_STEP


class Row(NamedTuple):
    """One input, masked: arrays of its length, and whether its second segment does not follow, where it has two."""

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    next_sentence_label: int | None = None


class MaskedRows(Dataset[dict[str, Tensor]], ABC):
    """Rows by (epoch, index), each a function of the seed and these two alone. Index -1 is a row without any target.

    Args:
        masking: what is done to the rows.
        special_ids: the ids of the special tokens, by HuggingFace's names for the tokens.
        seed: none for evaluation, which is the same in every run and epoch.
    """

    def __init__(self, masking: Masking, special_ids: dict[str, int], seed: int | None = None) -> None:
        self.masking, self.special_ids, self.seed = masking, special_ids, seed
        self._special = np.array(sorted(special_ids.values()))

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def length(self, key: Key) -> int:
        """Tokens of a row, the special ones among them."""

    @abstractmethod
    def row(self, key: Key) -> Row:
        """A row, masked."""

    def rng(self, key: Key) -> np.random.Generator:
        """The chance of a row."""
        epoch, index = key
        return np.random.default_rng([0, 0, index] if self.seed is None else [self.seed, epoch, index])

    def mask(
        self, ids: NDArray[np.int64], word_starts: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Masked ids and labels of a row."""
        return self.masking.apply(ids, ~np.isin(ids, self._special), word_starts, rng)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        return {name: rows[0] for name, rows in self.__getitems__([key]).items()}

    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """A batch.

        Returns:
            ``input_ids``, ``attention_mask``, ``token_type_ids`` and ``labels`` (-100 where nothing is to be
            predicted), (batch, seq) each; ``masked_positions`` (batch, most), the positions with a label, filled up
            with 0, that of [CLS]; of pairs also ``next_sentence_label`` (batch,), 0 where B follows A and 1 where it
            does not.
        """
        rows = [self.row(key) for key in keys]
        lengths = np.array([len(row.input_ids) for row in rows])
        width = -(-lengths.max() // LENGTH_STEP) * LENGTH_STEP
        batch = {
            "input_ids": np.full((len(rows), width), self.special_ids["pad_token"]),
            "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
            "token_type_ids": np.zeros((len(rows), width), np.int64),
            "labels": np.full((len(rows), width), IGNORED),
            "masked_positions": np.zeros((len(rows), self.masking.most(width)), np.int64),
        }
        if rows[0].next_sentence_label is not None:
            batch["next_sentence_label"] = np.array([row.next_sentence_label for row in rows])
        for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            for name in ("input_ids", "token_type_ids", "labels"):
                batch[name][i, :length] = getattr(row, name)
            positions = np.flatnonzero(row.labels != IGNORED)
            batch["masked_positions"][i, : len(positions)] = positions
        return {name: torch.from_numpy(rows) for name, rows in batch.items()}
