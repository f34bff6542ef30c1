"""Sentence pairs for next-sentence prediction (Devlin et al. 2018, section 3.1 and appendix A.2)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SentenceTokens:
    """Tokenised documents, as arrays that may be memory-mapped.

    Args:
        tokens: (tokens,), the ids of all documents, end to end.
        word_starts: (tokens,), true at the first token of each word.
        sentences: (sentences + 1,), where each sentence begins in ``tokens``, and the end.
        documents: (documents + 1,), where each document begins in ``sentences``, and the end.
    """

    tokens: NDArray[np.integer]
    word_starts: NDArray[np.bool_]
    sentences: NDArray[np.int64]
    documents: NDArray[np.int64]


class Pair(NamedTuple):
    """Two segments as places in ``tokens``, and whether the second follows the first in its document."""

    first: slice
    second: slice
    is_next: bool

    @property
    def length(self) -> int:
        """The tokens of both."""
        return self.first.stop - self.first.start + self.second.stop - self.second.start


class SentencePairs:
    """The pairs of an epoch, each drawn by its index alone.

    A pair is cut at a *boundary*, where one sentence of a document ends and the next begins. A is what stands before
    it; B is what stands after it or, as often, what stands after a boundary of another document. Nothing but the
    relation of A and B can tell which: both boundaries are drawn before the coin is thrown, and B is as long as the
    shorter of its two candidates, so that all lengths are the same under both outcomes; no B begins a document, no A
    ends one, and each B ends where the room ends.

    The epoch has as many pairs as it takes to read the corpus about once, their boundaries spread evenly over it, and
    each epoch draws new boundaries.

    Args:
        data: the documents.
        room: tokens of a pair at most, without the special ones.
        short_share: share of the pairs that are shorter, of any length, so that the fine-tuned model has seen some
            (0.1 in the paper).

    Raises:
        ValueError: fewer than two documents with two sentences: there are no pairs.
    """

    def __init__(self, data: SentenceTokens, room: int, short_share: float = 0.1) -> None:
        self.data, self.room, self.short_share = data, room, short_share
        # document i has the boundaries from boundary_of[i] to boundary_of[i + 1]: one fewer than it has sentences
        self.boundary_of = data.documents - np.arange(len(data.documents))
        self.boundaries = int(self.boundary_of[-1])
        self.token_of = data.sentences[data.documents]
        with_pairs = np.diff(self.boundary_of) > 0
        if with_pairs.sum() < 2:
            raise ValueError("fewer than two documents have two sentences")
        needed = np.ceil(np.diff(self.token_of)[with_pairs] / room).sum()
        self.count = int(min(needed, self.boundaries))

    def __len__(self) -> int:
        return self.count

    def draw(self, index: int, rng: np.random.Generator) -> Pair:
        """Pair ``index`` of the epoch that ``rng`` belongs to."""
        low, high = index * self.boundaries // self.count, (index + 1) * self.boundaries // self.count
        here = int(rng.integers(low, high))
        document = self._document(here)
        there = self._elsewhere(document, rng)
        other = self._document(there)
        room = int(rng.integers(2, self.room + 1)) if rng.random() < self.short_share else self.room
        # the share of A is spread about the half, since a segment of a few words tells nothing of what follows it
        split = min(max(1, round(room * rng.uniform(0.25, 0.75))), room - 1)
        end_of_first, alternative = self._token(here, document), self._token(there, other)
        start_of_first = max(end_of_first - split, int(self.token_of[document]))
        after = min(int(self.token_of[document + 1]) - end_of_first, int(self.token_of[other + 1]) - alternative)
        is_next = bool(rng.random() < 0.5)
        second = end_of_first if is_next else alternative
        # what A leaves free at the beginning of a document is B's
        length = min(room - (end_of_first - start_of_first), after)
        return Pair(slice(start_of_first, end_of_first), slice(second, second + length), is_next)

    def _elsewhere(self, document: int, rng: np.random.Generator) -> int:
        """A boundary of any other document, all equally likely."""
        begin, end = int(self.boundary_of[document]), int(self.boundary_of[document + 1])
        there = int(rng.integers(self.boundaries - (end - begin)))
        return there if there < begin else there + end - begin

    def _document(self, boundary: int) -> int:
        """The document that a boundary stands in."""
        return int(np.searchsorted(self.boundary_of, boundary, side="right")) - 1

    def _token(self, boundary: int, document: int) -> int:
        """The token that a boundary stands before."""
        return int(self.data.sentences[boundary + document + 1])
