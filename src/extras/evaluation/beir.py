"""beir: how well an encoder finds the documents that answer queries, in BEIR's format (Thakur et al. 2021)."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch

from src.checkpoint import read_checkpoint
from src.cli.verb import Positive
from src.encoder import Encoder, load_encoder
from src.errors import InputError
from src.extras.evaluation.beir_data import NANOBEIR, Collection, check_collection, find_collections, read_collection
from src.extras.evaluation.results import Evaluation, Part, Score, Scored, all_scores, bootstrap

CUT = 10  # of nDCG and MRR
QUERIES = 256  # searched at once


def beir(
    checkpoint: str,
    data: tuple[str, ...] | None = None,
    split: str | None = None,
    depth: Positive = 100,
    device: str = "cpu",
) -> Evaluation:
    """Rank all documents for each query by the cosines of their vectors; give nDCG, recall and MRR.

    Intervals are those of the bootstrap over queries. A document is its title and its text; the one that has the
    query's own id is passed over, as BEIR does.

    Args:
        checkpoint: a checkpoint of a BERT, a Longformer or a retriever
        data: folders in BEIR's format or the hub's, folders of such ones, or datasets on the hub (NanoBEIR's
            thirteen there)
        split: the queries (test, or the only one there is)
        depth: documents of a ranking, and the cut of recall
        device: cpu, cuda, cuda:1, mps, ...
    """
    sources = [source for given in data or NANOBEIR for source in find_collections(given)]
    names = [Path(source).resolve().name for source in sources]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--data has several collections that are called {repeated[0]}")
    found = [check_collection(source, split) for source in sources]
    encoder = load_encoder(checkpoint, device)
    parts = []
    for source, name, checksum in zip(sources, names, found, strict=True):
        settings = {"data": checksum, "depth": depth}
        parts.append(Part(name, settings, _Run(encoder, name, source, split, depth)))
    step = read_checkpoint(checkpoint).get("global_step")
    return Evaluation(step, parts, _with_mean)


class _Run:
    """Rank the documents of one collection."""

    def __init__(self, encoder: Encoder, name: str, source: str, split: str | None, depth: int) -> None:
        self.encoder, self.name, self.source, self.split, self.depth = encoder, name, source, split, depth

    def __call__(self, folder: Path) -> list[Score]:
        collection = read_collection(self.source, self.split)
        rankings = rank(self.encoder, collection, self.depth)
        found = [measures(rankings[query], judged, self.depth) for query, judged in collection.relevance.items()]
        n = f"{len(found):,} queries, {len(collection.documents):,} documents"
        return [Score(self.name, metric, *bootstrap([one[metric] for one in found]), n) for metric in found[0]]


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


def _with_mean(scored: Scored) -> list[Score]:
    """Put the means over several collections behind their own scores."""
    scores = all_scores(scored)
    if len(scored) > 1:
        note = f"of {len(scored)} collections"
        for metric in dict.fromkeys(score.metric for score in scores):
            scores.append(Score("mean", metric, fmean(s.value for s in scores if s.metric == metric), note=note))
    return scores
