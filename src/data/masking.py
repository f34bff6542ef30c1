"""Rows with masked words (Devlin et al. 2018, section 3.1 and appendix A.1): sentence pairs, or whole documents."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from src.data.seekable import uniforms
from src.data.sentences import DRAWS, Pairs, SentencePairs, SentenceTokens
from src.data.store import IGNORED, BatchedRows, Key
from src.tokenization import pad_rows


@dataclass(frozen=True)
class Masking:
    """How a sequence is masked.

    Args:
        mask_id: the id of [MASK].
        ordinary_ids: the ids that a random replacement is drawn from: all but the special ones.
        rate: fraction of the maskable tokens that is to be predicted.
        whole_words: whether all tokens of a word are predicted together.
    """

    mask_id: int
    ordinary_ids: NDArray[np.int64]
    rate: float = 0.15
    whole_words: bool = False

    def most(self, length: int) -> int:
        """Bound the positions of a sequence of this length that are predicted."""
        return int(self.rate * length) + 1

    def apply(
        self,
        input_ids: NDArray[np.int64],
        maskable: NDArray[np.bool_],
        word_starts: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Choose the positions to predict, and hide 80% of them behind [MASK] and 10% behind random tokens.

        Args:
            input_ids: (seq,).
            maskable: (seq,), false at special tokens.
            word_starts: (seq,), true at the first token of each word.
            rng: the only source of randomness.

        Returns:
            The masked ids, and the labels: the original id where it is to be predicted, else -100. At least one is,
            unless there is no maskable token, or whole words are masked and each is longer than the rate allows.
        """
        positions = np.flatnonzero(maskable)
        if not len(positions):
            return input_ids, np.full_like(input_ids, IGNORED)
        # rounded up or down at random, so that the rate is met in the mean whatever the length
        count = max(1, int(self.rate * len(positions) + rng.random()))
        if self.whole_words:
            chosen = _whole_words(positions, word_starts[positions], count, rng)
        else:
            chosen = rng.permutation(positions)[:count]
        labels = np.full_like(input_ids, IGNORED)
        labels[chosen] = input_ids[chosen]
        fate = rng.random(len(chosen))
        masked = input_ids.copy()
        masked[chosen[fate < 0.8]] = self.mask_id
        swapped = chosen[fate >= 0.9]
        masked[swapped] = rng.choice(self.ordinary_ids, len(swapped))
        return masked, labels


def _whole_words(
    positions: NDArray[np.int64], starts: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose words at random, each if it still fits into ``count`` tokens."""
    first = np.flatnonzero(starts)
    words = np.split(positions, first[first > 0])
    chosen: list[NDArray[np.int64]] = []
    left = count
    for i in rng.permutation(len(words)):
        if len(words[i]) <= left:
            chosen.append(words[i])
            left -= len(words[i])
        if not left:
            break
    return np.concatenate([positions[:0], *chosen])


class Row(NamedTuple):
    """One input, masked: arrays of its length, and whether its second segment does not follow, where it has two."""

    input_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    next_sentence_label: int = IGNORED


class MaskedRows(BatchedRows):
    """Rows ``[CLS] text [SEP]`` or ``[CLS] A [SEP] B [SEP]`` with masked words.

    Args:
        data: the documents.
        seq_len: tokens of a row at most, the special ones among them.
        masking: what is done to the rows.
        special_ids: the ids of the special tokens, by HuggingFace's names for the tokens.
        seed: None for evaluation, which is the same in every run and epoch.
    """

    has_pairs: bool
    draws: int  # random numbers that the segments of a row are drawn by

    def __init__(
        self,
        data: SentenceTokens,
        seq_len: int,
        masking: Masking,
        special_ids: dict[str, int],
        seed: int | None = None,
    ) -> None:
        self.data, self.seq_len, self.masking = data, seq_len, masking
        self.special_ids, self.seed = special_ids, seed
        self._special = np.array(sorted(special_ids.values()))

    @abstractmethod
    def draw(self, indices: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Pairs:
        """Draw the one or two segments of rows by their indices and (rows, draws) random numbers from [0, 1)."""

    def segments(self, keys: Sequence[Key] | NDArray[np.int64]) -> Pairs:
        """Draw the segments of rows by their keys: a function of the seed and these, many rows at a time."""
        epochs, indices = np.array(keys, np.int64).reshape(-1, 2).T
        if self.seed is None:
            epochs = np.zeros_like(epochs)
        return self.draw(indices, uniforms(self.seed or 0, epochs, indices, self.draws))

    def lengths(self, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the tokens of rows, the special ones among them."""
        starts, ends, _ = self.segments(np.stack([np.full_like(indices, epoch), indices], 1))
        return 1 + (ends - starts + 1).sum(1)

    def row(self, key: Key, starts: NDArray[np.int64], ends: NDArray[np.int64], is_next: bool) -> Row:
        """Make a row of its segments, masked."""
        cls, sep = self.special_ids["cls_token"], self.special_ids["sep_token"]
        if key[1] < 0:
            return Row(np.array([cls]), np.array([IGNORED]), np.array([0]))
        epoch, index = key
        rng = np.random.default_rng([0, 0, index] if self.seed is None else [self.seed, epoch, index])
        ids, word_starts, types = [np.array([cls])], [np.array([True])], [np.array([0])]
        for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
            begins = self.data.word_starts[start:end].astype(bool)
            begins[0] = True  # a segment may begin within a word: what is left of that word counts as one
            ids += [self.data.tokens[start:end], np.array([sep])]
            word_starts += [begins, np.array([True])]
            types.append(np.full(len(begins) + 1, number))
        input_ids = np.concatenate(ids).astype(np.int64)
        maskable = ~np.isin(input_ids, self._special)
        masked, labels = self.masking.apply(input_ids, maskable, np.concatenate(word_starts), rng)
        return Row(masked, labels, np.concatenate(types), int(not is_next))

    def __getitems__(self, keys: list[Key]) -> dict[str, Tensor]:
        """Give a batch.

        Returns:
            ``input_ids``, ``attention_mask``, ``token_type_ids`` and ``labels`` (-100 where nothing is to be
            predicted), (batch, seq) each; ``masked_positions`` (batch, most), the positions with a label, filled up
            with 0, that of [CLS]; of pairs also ``next_sentence_label`` (batch,), 0 where B follows A and 1 where it
            does not.
        """
        # the row of a negative index has no segments, and is drawn as the first one would be
        drawn = self.segments([(epoch, max(index, 0)) for epoch, index in keys])
        rows = [self.row(key, *segments) for key, *segments in zip(keys, *drawn, strict=True)]
        pad_id, longest = self.special_ids["pad_token"], self.seq_len
        input_ids, attention_mask = pad_rows([row.input_ids for row in rows], pad_id, longest)
        masked_positions = np.zeros((len(rows), self.masking.most(input_ids.shape[1])), np.int64)
        for i, row in enumerate(rows):
            positions = np.flatnonzero(row.labels != IGNORED)
            masked_positions[i, : len(positions)] = positions
        batch = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": pad_rows([row.token_type_ids for row in rows], 0, longest)[0],
            "labels": pad_rows([row.labels for row in rows], IGNORED, longest)[0],
            "masked_positions": masked_positions,
        }
        if self.has_pairs:
            batch["next_sentence_label"] = np.array([row.next_sentence_label for row in rows])
        return {name: torch.from_numpy(array) for name, array in batch.items()}


class MaskedPairs(MaskedRows):
    """Masked pairs ``[CLS] A [SEP] B [SEP]``, BERT's pretraining data; see :class:`MaskedRows` for the arguments."""

    has_pairs = True
    draws = DRAWS

    def __init__(
        self, pairs: SentencePairs, seq_len: int, masking: Masking, special_ids: dict[str, int], seed: int | None = None
    ) -> None:
        super().__init__(pairs.data, seq_len, masking, special_ids, seed)
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def draw(self, indices: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Pairs:
        return self.pairs.draw(indices, uniforms)

    def labels(self, most: int) -> NDArray[np.int64]:
        """Give the next-sentence labels of the first pairs of the first epoch, ``most`` of them at most."""
        keys = [(0, i) for i in range(min(most, len(self)))]
        return (~self.segments(keys).is_next).astype(np.int64)


class MaskedDocuments(MaskedRows):
    """Masked texts ``[CLS] text [SEP]``: a document, or a piece of one that is longer than there is room for.

    A document has as many rows as it takes to read it once. For evaluation they are its pieces, one after the other;
    for training each is a full piece from a random position, so that every epoch cuts elsewhere. See
    :class:`MaskedRows` for the arguments.
    """

    has_pairs = False
    draws = 1

    def __init__(
        self,
        data: SentenceTokens,
        seq_len: int,
        masking: Masking,
        special_ids: dict[str, int],
        seed: int | None = None,
    ) -> None:
        super().__init__(data, seq_len, masking, special_ids, seed)
        self.room = room = seq_len - 2  # beside the special tokens
        self.token_of = data.sentences[data.documents]  # where each document begins, and the end
        pieces = -(-np.diff(self.token_of) // room)
        self.piece_of = np.concatenate([[0], pieces.cumsum()])  # the number of each document's first piece

    def __len__(self) -> int:
        return int(self.piece_of[-1])

    def draw(self, indices: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Pairs:
        documents = np.searchsorted(self.piece_of, indices, side="right") - 1
        begins, ends = self.token_of[documents], self.token_of[documents + 1]
        if self.seed is None:
            begins = begins + (indices - self.piece_of[documents]) * self.room
        else:
            begins = begins + (uniforms[:, 0] * (np.maximum(ends - begins - self.room, 0) + 1)).astype(np.int64)
        ends = np.minimum(ends, begins + self.room)
        return Pairs(begins[:, None], ends[:, None], np.ones(len(indices), bool))
