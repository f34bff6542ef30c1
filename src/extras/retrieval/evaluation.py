"""Queries with their answers, and how well these are found: recall, MRR and nDCG of each stage, with intervals."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from src.errors import InputError
from src.extras.retrieval.index import Found, Index
from src.extras.retrieval.index_files import Mode
from src.extras.retrieval.passages import Document
from src.extras.retrieval.searcher import Searcher
from src.files import check_file, read_lines

MIN_WORDS = 6  # of a query: a heading asks for nothing
RESAMPLES = 2000  # of the bootstrap
CUT = 10  # of MRR and nDCG


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
    from src.data.sentences import split_sentences  # with Lightning, for which help does not wait

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


# ---- measures


def measures(ranked: list[int], answers: set[int], depth: int) -> dict[str, float]:
    """Compute recall among the first ``depth`` passages, MRR@10 and nDCG@10 of a list, the best first."""
    length = max(depth, CUT)
    listed = [float(number in answers) for number in ranked[:length]]
    missed = len(answers.difference(ranked[:length]))
    # passages that were not found stand behind the ranks that count
    target = torch.tensor(listed + [0.0] * (length - len(listed)) + [1.0] * missed).long()
    scores = torch.arange(len(target), 0, -1).float()
    from torchmetrics.functional.retrieval import (
        retrieval_normalized_dcg,
        retrieval_recall,
        retrieval_reciprocal_rank,
    )

    return {
        f"recall@{depth}": float(retrieval_recall(scores, target, top_k=depth)),
        f"MRR@{CUT}": float(retrieval_reciprocal_rank(scores, target, top_k=CUT)),
        f"nDCG@{CUT}": float(retrieval_normalized_dcg(scores, target, top_k=CUT)),
    }


class Estimate(NamedTuple):
    """A mean over queries with its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(values: NDArray[np.float64], seed: int = 0) -> Estimate:
    """Estimate a mean with the percentiles 2.5 and 97.5 of the means of samples drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high))


@dataclass(frozen=True)
class Evaluation:
    """What each stage reached.

    Args:
        values: by stage and measure, one value a query.
        seconds: by stage, one value a query; of a fused stage, with those that it fuses; of the reranker, by itself.
    """

    values: dict[str, dict[str, NDArray[np.float64]]]
    seconds: dict[str, NDArray[np.float64]]

    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """Average each measure at each stage."""
        return {stage: {m: bootstrap(v) for m, v in of.items()} for stage, of in self.values.items()}

    def gains(self, over: str) -> dict[str, Estimate]:
        """Compute what the reranker adds to the list it was given, query by query: the samples are of differences."""
        pairs = self.values["rerank"], self.values[over]
        return {measure: bootstrap(pairs[0][measure] - pairs[1][measure]) for measure in pairs[0]}

    def milliseconds(self) -> dict[str, tuple[float, float]]:
        """Compute the median and 95th percentile of the time of a query, by stage."""
        return {
            stage: (float(np.median(times) * 1e3), float(np.percentile(times, 95) * 1e3))
            for stage, times in self.seconds.items()
        }


def evaluate(
    searcher: Searcher, queries: list[Query], modes: tuple[Mode, ...], reranked: Mode, candidates: int, depth: int
) -> Evaluation:
    """Search for every query by every mode, and rerank the list of one of them.

    Args:
        searcher: with a reranker, if there is one to be measured.
        queries: with their answers.
        modes: to measure.
        reranked: the mode whose list the reranker is given.
        candidates: passages that it reads.
        depth: of recall, and of the lists.
    """
    values: dict[str, dict[str, list[float]]] = {}
    seconds: dict[str, list[float]] = {}

    def note(stage: str, found: Found, answers: set[int], time_taken: float) -> None:
        seconds.setdefault(stage, []).append(time_taken)
        for measure, value in measures([number for number, _ in found], answers, depth).items():
            values.setdefault(stage, {}).setdefault(measure, []).append(value)

    for query, answers in zip(queries, relevant(searcher.index, queries), strict=True):
        lists: dict[str, Found] = {}
        for mode in modes:
            start = time.perf_counter()
            lists[mode] = searcher.stages(query.text, mode, max(depth, candidates))[mode]
            note(mode, lists[mode], answers, time.perf_counter() - start)
        if searcher.reranker:
            start = time.perf_counter()
            best = searcher.rerank(query.text, lists[reranked][:candidates])
            note("rerank", best + lists[reranked][candidates:], answers, time.perf_counter() - start)
    as_arrays: dict[str, Any] = {stage: {m: np.array(v) for m, v in of.items()} for stage, of in values.items()}
    return Evaluation(as_arrays, {stage: np.array(times) for stage, times in seconds.items()})
