"""Masked documents, whole or in long pieces: what a network of a long context is pretrained on."""

import numpy as np

from src.data.masked_rows import MaskedRows, Row
from src.data.masking import Masking
from src.data.packing import IGNORED, Key
from src.data.pairs import SentenceTokens


class MaskedDocuments(MaskedRows):
    """Masked texts ``[CLS] text [SEP]``: a document, or a piece of one that is longer than there is room for.

    A document has as many rows as it takes to read it once. For evaluation they are its pieces, one after the other;
    for training each is a full piece from a place of chance, so that every epoch cuts elsewhere.

    Args:
        data: the documents.
        room: tokens of a row at most, without the special ones.
        masking: as the next ones, see :class:`MaskedRows`.
    """

    def __init__(
        self,
        data: SentenceTokens,
        room: int,
        masking: Masking,
        special_ids: dict[str, int],
        seed: int | None = None,
    ) -> None:
        super().__init__(masking, special_ids, seed)
        self.data, self.room = data, room
        self.token_of = data.sentences[data.documents]  # where each document begins, and the end
        pieces = -(-np.diff(self.token_of) // room)
        self.piece_of = np.concatenate([[0], pieces.cumsum()])  # the number of each document's first piece

    def __len__(self) -> int:
        return int(self.piece_of[-1])

    def _draw(self, key: Key) -> tuple[slice, np.random.Generator]:
        """The places of a row's tokens."""
        rng, index = self.rng(key), key[1]
        document = int(np.searchsorted(self.piece_of, index, side="right")) - 1
        begin, end = int(self.token_of[document]), int(self.token_of[document + 1])
        if self.seed is None:
            begin += (index - int(self.piece_of[document])) * self.room
        elif end - begin > self.room:
            begin = int(rng.integers(begin, end - self.room + 1))
        return slice(begin, min(end, begin + self.room)), rng

    def length(self, key: Key) -> int:
        place, _ = self._draw(key)
        return place.stop - place.start + 2

    def row(self, key: Key) -> Row:
        cls, sep = self.special_ids["cls_token"], self.special_ids["sep_token"]
        if key[1] < 0:
            return Row(np.array([cls]), np.array([IGNORED]), np.array([0]))
        place, rng = self._draw(key)
        ids = np.concatenate([[cls], self.data.tokens[place], [sep]]).astype(np.int64)
        word_starts = np.concatenate([[1], self.data.word_starts[place], [1]]).astype(bool)
        word_starts[1] = True  # a piece may begin within a word: what is left of that word counts as one
        masked, labels = self.mask(ids, word_starts, rng)
        return Row(masked, labels, np.zeros_like(ids))
