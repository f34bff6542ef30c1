"""Queries with the passages that answer them: by the inverse cloze task, or labelled."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.coverage import MeasuredTokenizer
from src.data.malformed import Malformed, malformed_reason
from src.data.sentences import SentenceTokens, read_sentences, write_sentences
from src.data.sources import TableSource
from src.data.store import RowWriter, open_rows, token_dtype
from src.data.texts import Piece, grouped

MIN_QUERY = 5  # tokens: what is shorter, as a heading, asks for nothing


class Example(NamedTuple):
    """A query, a passage that answers it, and what is known of other passages."""

    query: NDArray[np.integer]
    positive: NDArray[np.integer]
    number: int  # of the positive passage
    negatives: tuple[int, ...] = ()  # numbers of passages that are known not to answer it


class Examples(ABC):
    """Queries and numbered passages."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def n_passages(self) -> int: ...

    @property
    @abstractmethod
    def n_tokens(self) -> int:
        """Count the tokens of all passages."""

    @abstractmethod
    def draw(self, index: int, rng: np.random.Generator) -> Example:
        """Draw an example, by its index and a generator alone."""

    @abstractmethod
    def passage(self, number: int) -> NDArray[np.integer]: ...

    def negative(self, number: int, rng: np.random.Generator) -> NDArray[np.integer]:
        """Give a passage as one that does not answer a query."""
        return self.passage(number)


# ---- the inverse cloze task


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


def write_cloze(
    tokenizer: MeasuredTokenizer, pieces: Iterable[Piece], folder: Path, split: str, passage_len: int
) -> None:
    """Write the sentences and passages of a split."""
    write_sentences(tokenizer, pieces, folder, split)
    np.save(folder / f"{split}.passages.npy", cut_passages(read_sentences(folder, split), passage_len))


class InverseCloze(Examples):
    """The inverse cloze task (Lee et al. 2019): a sentence is the query, the passage it was taken out of the answer.

    There is one example a passage.

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
        return len(self.passages)

    @property
    def n_tokens(self) -> int:
        return int(np.diff(self.data.sentences[self.passages]).sum())

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        sentence = self._sentence(index, rng)
        begin, end = self.data.sentences[[sentence, sentence + 1]]
        query = self.data.tokens[begin:end]
        kept = rng.random() < self.keep
        return Example(query, self.passage(index) if kept else self._without(index, sentence), index)

    def passage(self, number: int) -> NDArray[np.integer]:
        begin, end = self.data.sentences[self.passages[number]]
        return self.data.tokens[begin:end]

    def negative(self, number: int, rng: np.random.Generator) -> NDArray[np.integer]:
        """Draw a passage with a gap as the answer has: only its words tell them apart."""
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


# ---- labelled rows


@dataclass(frozen=True)
class RankingSource(TableSource):
    """Rows of a query and its positive passage, the texts, and perhaps a column of negative ones."""

    negatives_column: str = "negatives"

    def labelled(
        self, rows: Iterable[dict[str, Any]], malformed: Malformed | None = None
    ) -> Iterator[tuple[str, str, list[str]]]:
        """Yield query, positive and negatives of each row that has text for all; tell ``malformed`` of the others."""
        for i, row in enumerate(rows, start=1):
            query, positive = (row[column] for column in self.texts)
            negatives = row.get(self.negatives_column) or []
            negatives = [negatives] if isinstance(negatives, str) else negatives
            reason = malformed_reason([query, positive, *negatives])
            if reason is None:
                yield query, positive, negatives
            elif malformed is not None:
                malformed.add(reason, f"row {i:,}")


def write_ranking(
    tokenizer: MeasuredTokenizer, rows: Iterable[tuple[str, str, list[str]]], folder: Path, split: str
) -> None:
    """Write the tokens of a split's queries and of its passages, each passage once however many rows name it.

    What stays in memory of a passage is a hash of 16 bytes.
    """
    numbers: dict[bytes, int] = {}
    dtype = token_dtype(tokenizer.tokenizer)
    with (
        RowWriter(folder, f"{split}.rows", np.int64) as row_passages,
        RowWriter(folder, f"{split}.queries", dtype) as queries,
        RowWriter(folder, f"{split}.passages", dtype) as passages,
    ):

        def number(text: str) -> int:
            digest = blake2b(text.encode(), digest_size=16).digest()
            if digest not in numbers:
                numbers[digest] = len(numbers)
                new.append(text)
            return numbers[digest]

        for group in grouped(rows, size=lambda row: len(row[0]) + len(row[1]) + sum(map(len, row[2]))):
            new: list[str] = []
            for _, positive, negatives in group:
                row_passages.append([number(text) for text in (positive, *negatives)])
            for writer, texts in ((queries, [query for query, _, _ in group]), (passages, new)):
                for encoding in tokenizer.encode(texts):
                    writer.append(encoding.ids)


class LabelledRanking(Examples):
    """Labelled examples, one a row."""

    def __init__(self, folder: Path, split: str) -> None:
        names = ("queries", "passages", "rows")
        self._queries, self._passages, self._rows = (open_rows(folder, f"{split}.{name}") for name in names)

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def n_passages(self) -> int:
        return len(self._passages)

    @property
    def n_tokens(self) -> int:
        return len(self._passages.values)

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        positive, *negatives = self._rows[index].tolist()
        return Example(self._queries[index], self._passages[positive], positive, tuple(negatives))

    def passage(self, number: int) -> NDArray[np.integer]:
        return self._passages[number]
