"""Hard negatives out of a search: rows that train the reranker on the lists which it will be given."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from src.extras.retrieval.evaluation import Query, relevant
from src.extras.retrieval.search import Mode, Searcher


class Row(NamedTuple):
    """A query, a passage that answers it, and passages that were found for it and do not, the best first."""

    query: str
    positive: str
    negatives: list[str]


def mine(searcher: Searcher, queries: Sequence[Query], mode: Mode, depth: int) -> Iterator[Row]:
    """A row for each passage that answers a query; queries for which nothing wrong was found have none.

    The negatives are what the search itself takes for answers, as in ANCE (Xiong et al. 2021, section 4): what learns
    to tell them apart learns what the search does not know.

    Args:
        searcher: without a reranker.
        queries: with their answers.
        mode: how the passages are found.
        depth: passages of a list, those that answer the query among them.

    Raises:
        InputError: as :meth:`Searcher.stages`, or a query's source is not in the index.
    """
    index = searcher.index
    for query, answers in zip(queries, relevant(index, queries), strict=True):
        found = [number for number, _ in searcher.stages(query.text, mode, depth)[mode]]
        negatives = [index.passage(number).text for number in found if number not in answers]
        if negatives:
            for number in sorted(answers):
                yield Row(query.text, index.passage(number).text, negatives)
