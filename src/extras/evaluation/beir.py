"""beir: how well an encoder finds the documents that answer queries, in BEIR's format (Thakur et al. 2021)."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch

from src.checkpoint import read_checkpoint
from src.cli.verb import Positive
from src.data.sources import fingerprint
from src.encoder import Encoder, load_encoder
from src.errors import InputError
from src.extras.evaluation.results import Evaluation, Part, Score, Scored, all_scores
from src.files import check_file, read_lines

CUT = 10  # of nDCG and MRR
RESAMPLES = 2000  # of the bootstrap
QUERIES = 256  # searched at once


def beir(checkpoint: str, data: Path, split: str = "test", depth: Positive = 100, device: str = "cpu") -> Evaluation:
    """Rank all documents for each query by the cosines of their vectors; give nDCG, recall and MRR.

    Intervals are those of the bootstrap over queries. A document is its title and its text; the one that has the
    query's own id is passed over, as BEIR does.

    Args:
        checkpoint: a checkpoint of a BERT, a Longformer or a retriever
        data: a folder with corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, or a folder of such ones
        split: the queries
        depth: documents of a ranking, and the cut of recall
        device: cpu, cuda, cuda:1, mps, ...
    """
    folders = (
        [data] if (data / "corpus.jsonl").is_file() else sorted(path.parent for path in data.glob("*/corpus.jsonl"))
    )
    if not folders:
        raise InputError(f"{data} has no corpus.jsonl, and no folder in it has: give a folder in BEIR's format")
    encoder = load_encoder(checkpoint, device)
    parts = []
    for folder in folders:
        files = [folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / f"{split}.tsv"]
        for file in files:
            check_file(file, is_text=True)
        settings = {"data": fingerprint({"depth": depth}, files)}
        parts.append(Part(folder.resolve().name, settings, _Run(encoder, folder, split, depth)))
    step = read_checkpoint(checkpoint).get("global_step")
    return Evaluation(step, parts, _with_mean)


class _Run:
    """Rank the documents of one folder."""

    def __init__(self, encoder: Encoder, data: Path, split: str, depth: int) -> None:
        self.encoder, self.data, self.split, self.depth = encoder, data, split, depth

    def __call__(self, folder: Path) -> list[Score]:
        collection = read_collection(self.data, self.split)
        rankings = rank(self.encoder, collection, self.depth)
        found = [measures(rankings[query], judged, self.depth) for query, judged in collection.relevance.items()]
        name, n = self.data.resolve().name, f"{len(found):,} queries, {len(collection.documents):,} documents"
        return [Score(name, metric, *bootstrap([one[metric] for one in found]), n) for metric in found[0]]


class Collection(NamedTuple):
    """Documents and queries by their ids, and the relevance of judged documents, above 0 for some, by query."""

    documents: dict[str, str]
    queries: dict[str, str]
    relevance: dict[str, dict[str, int]]


def read_collection(folder: Path, split: str) -> Collection:
    """Read a folder in BEIR's format; queries of which no document is relevant are left out, as trec_eval does."""
    documents = {i: f"{row.get('title') or ''} {row['text']}".strip() for i, row in _rows(folder / "corpus.jsonl")}
    queries = {i: str(row["text"]) for i, row in _rows(folder / "queries.jsonl")}
    path = folder / "qrels" / f"{split}.tsv"
    relevance: dict[str, dict[str, int]] = {}
    for number, row in enumerate(csv.reader(read_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE), 1):
        if number == 1 and not row[-1:][0].lstrip("-").isdigit():
            continue  # the header
        if len(row) != 3 or not row[2].lstrip("-").isdigit():
            raise InputError(f"line {number:,} of {path} is not query-id, corpus-id and score by tabs: {row}")
        for what, key, known in (("query", row[0], queries), ("document", row[1], documents)):
            if key not in known:
                raise InputError(f"line {number:,} of {path} names the {what} {key!r}, which is not in {folder}")
        relevance.setdefault(row[0], {})[row[1]] = int(row[2])
    relevance = {query: judged for query, judged in relevance.items() if any(score > 0 for score in judged.values())}
    if not relevance:
        raise InputError(f"{path} names no relevant document")
    return Collection(documents, queries, relevance)


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read JSON lines with ``_id`` and ``text``."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append((str(row["_id"]), {"title": row.get("title"), "text": row["text"]}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"line {number:,} of {path} is no JSON with _id and text: {line[:60]}") from error
    return rows


def rank(encoder: Encoder, collection: Collection, depth: int) -> dict[str, list[str]]:
    """List the ids of the ``depth`` nearest documents of each judged query, the best first."""
    ids = list(collection.documents)
    places = {document: i for i, document in enumerate(ids)}
    documents = torch.from_numpy(encoder.vectors(list(collection.documents.values()), "document"))
    asked = list(collection.relevance)
    queries = torch.from_numpy(encoder.vectors([collection.queries[query] for query in asked], "query"))
    rankings = {}
    for start in range(0, len(asked), QUERIES):
        cosines = queries[start : start + QUERIES] @ documents.T
        for row, query in enumerate(asked[start : start + QUERIES]):
            if query in places:
                cosines[row, places[query]] = -torch.inf
        best = cosines.topk(min(depth, len(ids)))
        for row, query in enumerate(asked[start : start + QUERIES]):
            rankings[query] = [ids[i] for i in best.indices[row].tolist() if ids[i] != query]
    return rankings


def measures(ranking: Sequence[str], relevance: dict[str, int], depth: int) -> dict[str, float]:
    """Compute nDCG@10 of graded relevance, recall among the first ``depth`` and MRR@10 of a ranking, the best first."""
    from torchmetrics.functional.retrieval import (
        retrieval_normalized_dcg,
        retrieval_recall,
        retrieval_reciprocal_rank,
    )

    listed = [max(0, relevance.get(document, 0)) for document in ranking]
    listed += [0] * (max(depth, CUT) - len(listed))
    missed = [score for document, score in relevance.items() if score > 0 and document not in set(ranking)]
    target = torch.tensor(listed + missed)  # what was not found stands behind the ranks that count
    scores = torch.arange(len(target), 0, -1).float()
    return {
        f"nDCG@{CUT}": float(retrieval_normalized_dcg(scores, target, top_k=CUT)),
        f"recall@{depth}": float(retrieval_recall(scores, target > 0, top_k=depth)),
        f"MRR@{CUT}": float(retrieval_reciprocal_rank(scores, target > 0, top_k=CUT)),
    }


def bootstrap(values: Sequence[float]) -> tuple[float, float, float]:
    """Give a mean with the percentiles 2.5 and 97.5 of the means of samples drawn with replacement."""
    rng, array = np.random.default_rng(0), np.array(values)
    means = [array[rng.integers(len(array), size=len(array))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(array.mean()), float(low), float(high)


def _with_mean(scored: Scored) -> list[Score]:
    """Put the means over several collections behind their own scores."""
    scores = all_scores(scored)
    if len(scored) > 1:
        note = f"of {len(scored)} collections"
        for metric in dict.fromkeys(score.metric for score in scores):
            scores.append(Score("mean", metric, fmean(s.value for s in scores if s.metric == metric), note=note))
    return scores
