"""Search: BM25, vectors, both fused, and a reranker over the best of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import torch

from src.checkpoint import load_trained
from src.encoder import Encoder
from src.errors import InputError
from src.extras.retrieval.index import Found, Index, Passage
from src.extras.retrieval.index_files import Mode
from src.extras.retrieval.lexical import bm25_scores
from src.models import BERTClassifier
from src.tokenization import bert_row, pad_pairs
from src.trained_bert import TrainedBERT

RRF_K = 60  # of the paper
DEPTH = 100  # passages of each list that are fused, at least
BATCH = 32  # pairs that the reranker reads at once


@dataclass(frozen=True)
class Hit:
    """A passage that was found, with its score at each stage that met it."""

    number: int
    passage: Passage
    scores: dict[str, float] = field(default_factory=dict)


def fuse(lists: Sequence[Found]) -> Found:
    """Fuse lists by their ranks: each gives a passage 1 / (60 + its rank) (Cormack et al. 2009)."""
    scores: dict[int, float] = {}
    for found in lists:
        for rank, (number, _) in enumerate(found, 1):
            scores[number] = scores.get(number, 0.0) + 1 / (RRF_K + rank)
    return sorted(scores.items(), key=lambda one: (-one[1], one[0]))


def blend(first: Sequence[float], second: Sequence[float], weight: float) -> list[float]:
    """Sum two scores of the same passages with weights, each brought to mean 0 and deviation 1.

    A reranker that is not sure, as one that was trained for minutes, adds to the search that found the passages more
    than it does alone (Wang et al. 2021, of dense retrieval and BM25).

    Args:
        first: of the search.
        second: of the reranker.
        weight: of the second, between 0 and 1.
    """
    if weight == 1 or not first:
        return list(second)
    scaled = []
    for scores in (first, second):
        mean, deviation = fmean(scores), pstdev(scores) or 1.0
        scaled.append([(score - mean) / deviation for score in scores])
    return [(1 - weight) * a + weight * b for a, b in zip(*scaled, strict=True)]


class Reranker(TrainedBERT[BERTClassifier]):
    """A BERT with one score, over ``[CLS] query [SEP] passage [SEP]``."""

    @torch.inference_mode()
    def scores(self, query: str, passages: Sequence[str]) -> list[float]:
        """Score each passage. What is longer than the network's positions is cut, the longer text first."""
        first = self.tokenizer.encode(query, add_special_tokens=False).ids
        encodings = self.tokenizer.encode_batch(list(passages), add_special_tokens=False)
        length = self.model.config.max_seq_len
        pairs = [bert_row([first, encoding.ids], length, self.special_ids) for encoding in encodings]
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))  # rows of like length go together
        found = [0.0] * len(pairs)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            arrays = pad_pairs([pairs[i] for i in batch], self.special_ids["pad_token"], length)
            scores = self.model(**{name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()})
            for i, score in zip(batch, scores[:, 0].float().tolist(), strict=True):
                found[i] = score
        return found


def load_reranker(path: str | Path, device: str = "cpu") -> Reranker:
    """Load the reranker of a checkpoint, which has one label."""
    model, tokenizer, _ = load_trained(path, BERTClassifier)
    if model.config.n_labels != 1:
        raise InputError(f"checkpoint {path} has {model.config.n_labels} labels: a reranker has one, its score")
    return Reranker(model, tokenizer, device)


class Searcher:
    """Search an index.

    Args:
        index: to search.
        encoder: that the index was made with; needed but for ``bm25``.
        reranker: scores the best anew, if given.
        weight: of its scores beside those of the search: see :func:`blend`. With 1 it decides alone.
    """

    def __init__(
        self, index: Index, encoder: Encoder | None = None, reranker: Reranker | None = None, weight: float = 1.0
    ) -> None:
        self.index, self.encoder, self.reranker, self.weight = index, encoder, reranker, weight

    def stages(self, query: str, mode: Mode, k: int) -> dict[str, Found]:
        """Find what each list has for a query, ``k`` passages at most; the last one is that of the mode."""
        if not re.search(r"\w", query):
            raise InputError(f"the query {query[:40]!r} has no words: ask for something")
        depth = max(k, DEPTH) if mode == "hybrid" else k
        found: dict[str, Found] = {}
        if mode != "dense":
            found["bm25"] = self.index.bm25(query, depth)
        if mode != "bm25":
            if self.encoder is None:
                raise InputError(f"the search {mode} needs the encoder of the index: name it by --encoder")
            found["dense"] = self.index.dense(self.encoder.vectors([query], "query")[0], depth)
        if mode == "hybrid":
            found["hybrid"] = fuse(list(found.values()))
        return {name: one[:k] if name == mode else one for name, one in found.items()}

    def search(self, query: str, mode: Mode, k: int, candidates: int = 50) -> list[Hit]:
        """Find the ``k`` best passages, or all if there are fewer.

        Args:
            query: of any text with a word in it.
            mode: how the candidates are found.
            k: how many.
            candidates: passages that the reranker reads; the others follow it in the order of the first search.
        """
        found = self.stages(query, mode, max(k, candidates) if self.reranker else k)
        ranked = found[mode]
        if self.reranker:
            found["rerank"] = self.rerank(query, ranked[:candidates])
            ranked = found["rerank"] + ranked[candidates:]
        scores = {name: dict(one) for name, one in found.items()}
        return [
            Hit(number, self.index.passage(number), {name: of[number] for name, of in scores.items() if number in of})
            for number, _ in ranked[:k]
        ]

    def best_sentences(self, query: str, hits: Sequence[Hit], k: int) -> list[tuple[str, int]]:
        """Find the ``k`` sentences of hits that are nearest to a query: by vectors, or by words without an encoder.

        Returns:
            The sentences, the best first, each with the position of its hit.
        """
        from src.data.sentences import split_sentences  # with Lightning, for which a search does not wait

        places: dict[str, int] = {}
        for place, hit in enumerate(hits):
            for sentence in split_sentences(hit.passage.text):
                places.setdefault(" ".join(sentence.split()), place)
        sentences = list(places)
        if self.encoder is None:
            scores = bm25_scores(query, sentences, self.index.settings.stemmer)
        else:
            scores = self.encoder.vectors(sentences, "document") @ self.encoder.vectors([query], "query")[0]
        return [(sentences[i], places[sentences[i]]) for i in np.argsort(-scores, kind="stable")[:k]]

    def rerank(self, query: str, found: Found) -> Found:
        """Order passages by the reranker's scores, or by both scores where its weight is less than 1.

        Returns:
            The passages with the reranker's own scores.
        """
        assert self.reranker is not None
        scores = self.reranker.scores(query, [self.index.passage(number).text for number, _ in found])
        blended = blend([score for _, score in found], scores, self.weight)
        order = sorted(range(len(found)), key=lambda i: -blended[i])
        return [(found[i][0], scores[i]) for i in order]
