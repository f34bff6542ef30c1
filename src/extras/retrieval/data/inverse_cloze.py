"""The inverse cloze task (Lee et al. 2019): a sentence is the query, the passage it was taken out of is the answer."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.coverage import MeasuredTokenizer
from src.data.sentences import SentenceTokens, read_sentences, write_sentences

MIN_QUERY = 5  # tokens: what is shorter, as a heading, asks for nothing


class Example(NamedTuple):
    """A query, a passage that answers it, and what is known of other passages."""

    query: NDArray[np.integer]
    positive: NDArray[np.integer]
    number: int  # of the positive passage
    negatives: tuple[int, ...] = ()  # numbers of passages that are known not to answer it


def cut_passages(data: SentenceTokens, passage_len: int) -> NDArray[np.int64]:
    """Cut runs of two sentences or more within a document, of up to ``passage_len`` tokens: (passages, 2), by sentence.

    A sentence longer than that ends its passage, which is cut when it is read.
    """
    found = []
    for first, last in pairwise(data.documents.tolist()):
        start = first
        for end in range(first + 1, last + 1):
            following = data.sentences[min(end + 1, last)]
            is_full = following - data.sentences[start] > passage_len or end == last
            if is_full and end - start >= 2:
                found.append((start, end))
                start = end
    return np.array(found, np.int64).reshape(-1, 2)


def write_cloze(tokenizer: MeasuredTokenizer, texts: Iterable[str], folder: Path, split: str, passage_len: int) -> None:
    """Write the sentences and passages of a split."""
    write_sentences(tokenizer, texts, folder, split)
    np.save(folder / f"{split}.passages.npy", cut_passages(read_sentences(folder, split), passage_len))


class InverseCloze:
    """The examples of an epoch, one a passage, each drawn by its index and a generator alone.

    Args:
        data: the sentences, which may be memory-mapped.
        passages: (passages, 2), the first sentence of each, and the one after its last.
        keep: fraction of the queries that stay in their passage, so that shared words count too (0.1 in the paper).
    """

    def __init__(self, data: SentenceTokens, passages: NDArray[np.int64], keep: float) -> None:
        self.data, self.passages, self.keep = data, passages, keep

    def __len__(self) -> int:
        return len(self.passages)

    @property
    def n_passages(self) -> int:
        """How many passages there are."""
        return len(self.passages)

    @property
    def n_tokens(self) -> int:
        """The tokens of all passages."""
        return int(np.diff(self.data.sentences[self.passages]).sum())

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        """Draw the example of passage ``index``."""
        sentence = self._sentence(index, rng)
        begin, end = self.data.sentences[[sentence, sentence + 1]]
        query = self.data.tokens[begin:end]
        kept = rng.random() < self.keep
        return Example(query, self.whole(index) if kept else self._without(index, sentence), index)

    def whole(self, number: int) -> NDArray[np.integer]:
        """Give a passage with all its sentences."""
        begin, end = self.data.sentences[self.passages[number]]
        return self.data.tokens[begin:end]

    def candidate(self, number: int, rng: np.random.Generator) -> NDArray[np.integer]:
        """Draw a passage that is not the answer, with a gap as the answer has: only its words tell them apart."""
        return self._without(number, self._sentence(number, rng))

    def _sentence(self, number: int, rng: np.random.Generator) -> int:
        first, last = self.passages[number]
        lengths = np.diff(self.data.sentences[first : last + 1])
        fit = np.flatnonzero(lengths >= MIN_QUERY)
        return int(first + (rng.choice(fit) if len(fit) else rng.integers(last - first)))

    def _without(self, number: int, sentence: int) -> NDArray[np.integer]:
        (first, last), starts = self.passages[number], self.data.sentences
        tokens = self.data.tokens
        return np.concatenate([tokens[starts[first] : starts[sentence]], tokens[starts[sentence + 1] : starts[last]]])
