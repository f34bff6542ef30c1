"""Labelled queries: rows of a query, a passage that answers it, and passages that do not."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.coverage import MeasuredTokenizer
from src.data.malformed import Malformed, malformed_reason
from src.data.sources import TableSource
from src.data.store import open_rows, token_dtype, write_rows
from src.extras.retrieval.data.inverse_cloze import Example


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
    """Write the tokens of a split's queries and of its passages, each passage once however many rows name it."""
    queries, row_passages = [], []
    numbers: dict[str, int] = {}
    for query, positive, negatives in rows:
        queries.append(query)
        row_passages.append([numbers.setdefault(text, len(numbers)) for text in (positive, *negatives)])
    write_rows(folder, f"{split}.rows", row_passages)
    for name, texts in (("queries", queries), ("passages", list(numbers))):
        ids = (encoding.ids for encoding in tokenizer.encode(texts))
        write_rows(folder, f"{split}.{name}", ids, token_dtype(tokenizer.tokenizer))


class LabelledRanking:
    """Labelled examples, one a row: see :class:`src.extras.retrieval.data.inverse_cloze.InverseCloze`."""

    def __init__(self, folder: Path, split: str) -> None:
        names = ("queries", "passages", "rows")
        self._queries, self._passages, self._rows = (open_rows(folder, f"{split}.{name}") for name in names)

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def n_passages(self) -> int:
        """How many passages there are."""
        return len(self._passages)

    @property
    def n_tokens(self) -> int:
        """The tokens of all passages."""
        return len(self._passages.values)

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        """Give the example of row ``index``."""
        positive, *negatives = self._rows[index].tolist()
        return Example(self._queries[index], self._passages[positive], positive, tuple(negatives))

    def whole(self, number: int) -> NDArray[np.integer]:
        """Give a passage."""
        return self._passages[number]

    def candidate(self, number: int, rng: np.random.Generator) -> NDArray[np.integer]:
        """Give the same passage: nothing is taken out of labelled ones."""
        return self._passages[number]
