"""Labelled queries: rows of a query, a passage that answers it, and passages that do not."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.coverage import MeasuredTokenizer
from src.data.malformed import DEFAULT, Malformed, Reading, text_objection
from src.data.sources import check_columns, files_of, fingerprint, load_rows, locate
from src.data.splits import check_fractions, cut_rows, split_parts
from src.extras.retrieval.data.inverse_cloze import Example


@dataclass(frozen=True)
class RankingSource:
    """Where labelled rows come from and how they are split; see ``RetrieverDataModule`` for the arguments."""

    source: str
    name: str | None
    query_column: str
    positive_column: str
    negatives_column: str
    validation_fraction: float
    test_fraction: float
    reading: Reading = DEFAULT

    def __post_init__(self) -> None:
        check_fractions(self.validation_fraction, self.test_fraction)

    def fingerprint(self) -> str:
        """A hash of the arguments and of the files' sizes and times."""
        return fingerprint(asdict(self), files_of(self.source))

    def splits(self, cache_dir: Path) -> dict[str, Any]:
        """The rows of each split.

        Raises:
            InputError: a file is missing or unreadable, or a column is missing.
        """
        columns = (self.query_column, self.positive_column)
        parts = load_rows(locate(self.source), cache_dir, self.reading, columns, name=self.name)
        found = cut_rows(self.source, split_parts(parts, self.source), self.validation_fraction, self.test_fraction)
        for rows in found.values():
            check_columns(self.source, rows, columns)
        return found

    def texts(
        self, rows: Iterable[dict[str, Any]], malformed: Malformed | None = None
    ) -> Iterator[tuple[str, str, list[str]]]:
        """Query, positive and negatives of each row that has text for all; of the others ``malformed`` is told."""
        for i, row in enumerate(rows, start=1):
            query, positive = row[self.query_column], row[self.positive_column]
            negatives = row.get(self.negatives_column) or []
            negatives = [negatives] if isinstance(negatives, str) else negatives
            objection = text_objection([query, positive, *negatives])
            if objection is None:
                yield query, positive, negatives
            elif malformed is not None:
                malformed.add(objection, f"row {i:,}")


def write_ranking(
    tokenizer: MeasuredTokenizer, rows: Iterable[tuple[str, str, list[str]]], folder: Path, split: str
) -> None:
    """Write the tokens of a split's queries and of its passages, each passage once however many rows name it."""
    queries, row_passages = [], []
    numbers: dict[str, int] = {}
    for query, positive, negatives in rows:
        queries.append(query)
        row_passages.append([numbers.setdefault(text, len(numbers)) for text in (positive, *negatives)])
    arrays: dict[str, NDArray[Any]] = {"rows": _flat(row_passages), "rows_starts": _starts(row_passages)}
    for name, texts in (("queries", queries), ("passages", list(numbers))):
        ids = [encoding.ids for encoding in tokenizer.encode(texts)]
        arrays |= {name: _flat(ids), f"{name}_starts": _starts(ids)}
    np.savez(folder / f"{split}.npz", **arrays)  # type: ignore[arg-type]


def _flat(rows: list[list[int]]) -> NDArray[np.int64]:
    return np.array([item for row in rows for item in row], np.int64)


def _starts(rows: list[list[int]]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, rows)])


class LabelledRanking:
    """Labelled examples, one a row: see :class:`src.extras.retrieval.data.inverse_cloze.InverseCloze`."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            held = dict(arrays)
        self._queries = _pieces(held["queries"], held["queries_starts"])
        self._passages = _pieces(held["passages"], held["passages_starts"])
        self._rows = _pieces(held["rows"], held["rows_starts"])

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def n_passages(self) -> int:
        """How many passages there are."""
        return len(self._passages)

    @property
    def n_tokens(self) -> int:
        """The tokens of all passages."""
        return sum(map(len, self._passages))

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        """The example of row ``index``."""
        positive, *negatives = self._rows[index].tolist()
        return Example(self._queries[index], self._passages[positive], positive, tuple(negatives))

    def whole(self, number: int) -> NDArray[np.integer]:
        """A passage."""
        return self._passages[number]

    def candidate(self, number: int, rng: np.random.Generator) -> NDArray[np.integer]:
        """The same passage: nothing is taken out of labelled ones."""
        return self._passages[number]


def _pieces(flat: NDArray[np.int64], starts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [flat[start:end] for start, end in pairwise(starts.tolist())]
