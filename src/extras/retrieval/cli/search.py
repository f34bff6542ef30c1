"""rag search: the best passages for a query, with their scores and sources."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from src.cli.verb import Fraction, Positive
from src.extras.retrieval.index_files import Mode, read_manifest

if TYPE_CHECKING:
    from src.encoder import Encoder
    from src.extras.retrieval.index import Index
    from src.extras.retrieval.searcher import Hit, Searcher

SHOWN = 300  # characters of a passage


@dataclass(frozen=True)
class IndexOptions:
    """An index to read.

    Args:
        index: a folder that rag index made
        encoder: the checkpoint of its encoder; where it was when the index was made, if not given
        device: cpu, cuda, cuda:1, mps, ...
    """

    index: Path
    encoder: str | None = None
    device: str = "cpu"

    def open(self, needs_vectors: bool) -> "tuple[Index, Encoder | None]":
        """Read the index, and its encoder if that is named or needed."""
        from src.encoder import load_encoder  # with torch, for which help does not wait
        from src.extras.retrieval.index import Index

        index = Index(self.index)
        path: str | None = self.encoder or index.settings.encoder
        encoder = None
        if path and (self.encoder or needs_vectors):
            encoder = load_encoder(path, self.device)
            index.check_encoder(encoder, path)
        return index, encoder

    def best_mode(self, mode: Mode | None) -> Mode:
        """Return the mode that was asked for, or the best that the index has."""
        return mode or ("bm25" if read_manifest(self.index).settings.dimension is None else "hybrid")


@dataclass(frozen=True)
class SearchOptions(IndexOptions):
    """An index to search, and a reranker.

    Args:
        rerank: a checkpoint of a reranker, to order the candidates anew
        candidates: passages that it reads
        rerank_weight: of its scores beside those of the search; 1: they alone
    """

    rerank: str | None = None
    candidates: Positive = 50
    rerank_weight: Fraction = 1.0

    def searcher(self, needs_vectors: bool) -> "Searcher":
        """Open the index with its encoder, and the reranker if one is named."""
        from src.extras.retrieval.searcher import Searcher, load_reranker

        index, encoder = self.open(needs_vectors)
        reranker = load_reranker(self.rerank, self.device) if self.rerank else None
        return Searcher(index, encoder, reranker, self.rerank_weight)


def search(query: str, options: SearchOptions, mode: Mode | None = None, k: Positive = 5) -> None:
    """Show the best passages for a query, the best first, with their scores and sources.

    Args:
        query: what to look for
        mode: words, vectors, or both (hybrid, if there are vectors)
        k: passages to show
    """
    mode = options.best_mode(mode)
    hits = options.searcher(mode != "bm25").search(query, mode, k, options.candidates)
    for i, hit in enumerate(hits, 1):
        text = " ".join(hit.passage.text.split())
        print(f"{i}. {cited(hit)}\n   {text[:SHOWN]}{'...' if len(text) > SHOWN else ''}")
    if not hits:
        print("nothing was found")


def cited(hit: "Hit") -> str:
    """Format a hit as its source, the characters that it spans there, and its scores."""
    source, start, end, _ = hit.passage
    scores = "  ".join(f"{name} {score:.4f}" for name, score in hit.scores.items())
    return f"{source} [{start:,}-{end:,}]  {scores}"
