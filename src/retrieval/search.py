"""Search: BM25, vectors, both fused, and a reranker over the best of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from src.errors import InputError
from src.retrieval.encoder import Encoder
from src.retrieval.index import Found, Index
from src.retrieval.rerank import Reranker
from src.retrieval.segment import Passage

Mode = Literal["bm25", "dense", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)
RRF_K = 60  # of the paper
DEPTH = 100  # passages of each list that are fused, at least


@dataclass(frozen=True)
class Hit:
    """A passage that was found, with its score at each stage that met it."""

    number: int
    passage: Passage
    scores: dict[str, float] = field(default_factory=dict)


def fuse(lists: Sequence[Found]) -> Found:
    """Reciprocal rank fusion: each list gives a passage 1 / (60 + its rank) (Cormack et al. 2009)."""
    scores: dict[int, float] = {}
    for found in lists:
        for rank, (number, _) in enumerate(found, 1):
            scores[number] = scores.get(number, 0.0) + 1 / (RRF_K + rank)
    return sorted(scores.items(), key=lambda one: (-one[1], one[0]))


class Searcher:
    """Search an index.

    Args:
        index: to search.
        encoder: that the index was made with; needed but for ``bm25``.
        reranker: scores the best anew, if given.
    """

    def __init__(self, index: Index, encoder: Encoder | None = None, reranker: Reranker | None = None) -> None:
        self.index, self.encoder, self.reranker = index, encoder, reranker

    def stages(self, query: str, mode: Mode, k: int) -> dict[str, Found]:
        """What each list has for a query, ``k`` passages at most; the last one is that of the mode.

        Raises:
            InputError: the query has no words, or there are no vectors.
        """
        if not re.search(r"\w", query):
            raise InputError(f"the query {query[:40]!r} has no words: ask for something")
        depth = max(k, DEPTH) if mode == "hybrid" else k
        found: dict[str, Found] = {}
        if mode != "dense":
            found["bm25"] = self.index.bm25(query, depth)
        if mode != "bm25":
            if self.encoder is None:
                raise InputError(f"the search {mode} needs the encoder of the index: name it by --encoder")
            found["dense"] = self.index.dense(self.encoder.vectors([query])[0], depth)
        if mode == "hybrid":
            found["hybrid"] = fuse(list(found.values()))
        return {name: one[:k] if name == mode else one for name, one in found.items()}

    def search(self, query: str, mode: Mode, k: int, candidates: int = 50) -> list[Hit]:
        """The ``k`` best passages, or all if there are fewer.

        Args:
            query: of any text with a word in it.
            mode: how the candidates are found.
            k: how many.
            candidates: passages that the reranker reads; the others follow it in the order of the first search.

        Raises:
            InputError: as :meth:`stages`.
        """
        found = self.stages(query, mode, max(k, candidates) if self.reranker else k)
        scores = {name: dict(one) for name, one in found.items()}
        numbers = [number for number, _ in found[mode]]
        passages = {number: self.index.passage(number) for number in numbers}
        if self.reranker:
            read = numbers[:candidates]
            reranked = self.reranker.rank(query, [passages[number].text for number in read])
            scores["rerank"] = {read[i]: score for i, score in reranked}
            numbers = [read[i] for i, _ in reranked] + numbers[candidates:]
        return [
            Hit(number, passages[number], {name: of[number] for name, of in scores.items() if number in of})
            for number in numbers[:k]
        ]
