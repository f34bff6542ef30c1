"""Queries with their answers: read, made out of documents without labels, and mined for hard negatives."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.data.sentences import split_sentences
from src.errors import InputError
from src.extras.retrieval.documents import Document
from src.extras.retrieval.index import Index
from src.extras.retrieval.searcher import Mode, Searcher
from src.files import check_file, read_lines

MIN_WORDS = 6  # of a query: a heading asks for nothing


class Query(NamedTuple):
    """A query, and where its answer is: in the passages of ``source`` that meet ``start`` to ``end``, in characters."""

    text: str
    source: str
    start: int
    end: int


def read_queries(path: Path) -> list[Query]:
    """Read queries from JSON lines with ``query``, ``source``, ``start`` and ``end``."""
    check_file(path, is_text=True)
    queries = []
    for n, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            queries.append(_query(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"line {n} of {path} is no query with query, source, start and end: {line[:60]}"
            ) from error
    if not queries:
        raise InputError(f"{path} has no queries")
    return queries


def _query(row: dict[str, Any]) -> Query:
    """Make a query of a row of JSON, which names its source as documents may: by text or by a number."""
    text, source, start, end = (row[name] for name in ("query", "source", "start", "end"))
    if not (isinstance(text, str) and type(source) in (str, int) and type(start) is type(end) is int):
        raise ValueError("of another type")
    text.encode()  # half of a surrogate pair is valid JSON, and no text
    return Query(text, str(source), start, end)


def relevant(index: Index, queries: Iterable[Query]) -> list[set[int]]:
    """Find the numbers of the passages that answer each query; a source that is not in the index is refused."""
    spans: dict[str, list[tuple[int, int, int]]] = {}
    for number in index.numbers.tolist():
        source, start, end = index.span(number)
        spans.setdefault(source, []).append((start, end, number))
    found = []
    for query in queries:
        if query.source not in spans:
            raise InputError(
                f"the query {query.text[:40]!r} is answered by {query.source!r}, which is not in the index"
            )
        found.append({n for start, end, n in spans[query.source] if start < query.end and query.start < end})
    return found


def make_queries(documents: list[Document], every: int, seed: int = 0) -> tuple[list[Document], list[Query]]:
    """Take one sentence out of each run of ``every`` sentences: the inverse cloze task (Lee et al. 2019).

    Returns:
        The documents without those sentences, and the sentences as queries. What answers one is the passage that it was
        taken out of: the one with the character before the gap, and the one with the character after it.
    """
    rng = np.random.default_rng(seed)
    remaining, queries = [], []
    for document in documents:
        sentences = split_sentences(document.text)
        taken = set()
        for start in range(0, len(sentences), every):
            run = range(start, min(start + every, len(sentences)))
            fit = [i for i in run if len(sentences[i].split()) >= MIN_WORDS]
            if len(fit) > 1:  # what is left of the run must say something, too
                taken.add(int(rng.choice(fit)))
        text = ""
        for i, sentence in enumerate(sentences):
            if i in taken:
                gap = len(text)
                queries.append(Query(sentence, document.source, max(0, gap - 2), gap + 1))  # over the line break
            else:
                text += sentence + "\n"
        remaining.append(Document(document.source, text))
    return remaining, queries


class Row(NamedTuple):
    """A query, a passage that answers it, and passages that were found for it and do not, the best first."""

    query: str
    positive: str
    negatives: list[str]


def mine_negatives(searcher: Searcher, queries: Sequence[Query], mode: Mode, depth: int) -> Iterator[Row]:
    """Make a row for each passage that answers a query; queries for which nothing wrong was found have none.

    The negatives are what the search itself takes for answers, as in ANCE (Xiong et al. 2021, section 4): what learns
    to tell them apart learns what the search does not know.

    Args:
        searcher: without a reranker.
        queries: with their answers.
        mode: how the passages are found.
        depth: passages of a list, those that answer the query among them.
    """
    index = searcher.index
    for query, answers in zip(queries, relevant(index, queries), strict=True):
        found = [number for number, _ in searcher.stages(query.text, mode, depth)[mode]]
        negatives = [index.passage(number).text for number in found if number not in answers]
        if negatives:
            for number in sorted(answers):
                yield Row(query.text, index.passage(number).text, negatives)
