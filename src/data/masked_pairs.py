"""Masked sentence pairs, BERT's pretraining data (Devlin et al. 2018, section 3.1)."""

import numpy as np
from numpy.typing import NDArray

from src.data.masked_rows import MaskedRows, Row
from src.data.masking import Masking
from src.data.packing import IGNORED, Key
from src.data.pairs import Pair, SentencePairs


class MaskedPairs(MaskedRows):
    """Masked pairs ``[CLS] A [SEP] B [SEP]``.

    Args:
        pairs: the sentence pairs.
        masking: as the next ones, see :class:`MaskedRows`.
    """

    def __init__(
        self, pairs: SentencePairs, masking: Masking, special_ids: dict[str, int], seed: int | None = None
    ) -> None:
        super().__init__(masking, special_ids, seed)
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def _draw(self, key: Key) -> tuple[Pair, np.random.Generator]:
        rng = self.rng(key)
        return self.pairs.draw(key[1], rng), rng

    def labels(self, most: int) -> NDArray[np.int64]:
        """The next-sentence labels of the first pairs of the first epoch, ``most`` of them at most."""
        return np.array([not self._draw((0, i))[0].is_next for i in range(min(most, len(self)))], np.int64)

    def length(self, key: Key) -> int:
        return self._draw(key)[0].length + 3

    def row(self, key: Key) -> Row:
        cls, sep = self.special_ids["cls_token"], self.special_ids["sep_token"]
        if key[1] < 0:
            return Row(np.array([cls]), np.array([IGNORED]), np.array([0]), IGNORED)
        (first, second, is_next), rng = self._draw(key)
        data = self.pairs.data
        ids = np.concatenate([[cls], data.tokens[first], [sep], data.tokens[second], [sep]]).astype(np.int64)
        # a segment may begin within a word, where it was cut: what is left of that word counts as one
        word_starts = np.concatenate([[1], data.word_starts[first], [1], data.word_starts[second], [1]]).astype(bool)
        begin_of_second = first.stop - first.start + 2
        word_starts[[1, begin_of_second]] = True
        masked, labels = self.mask(ids, word_starts, rng)
        segments = (np.arange(len(ids)) >= begin_of_second).astype(np.int64)
        return Row(masked, labels, segments, int(not is_next))
